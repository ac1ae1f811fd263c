"""The tiny T5 models as llama.cpp's converter writes them: DIR/NAME (a folder of tiny_seq2seq.py) becomes DIR/gguf/NAME.gguf,
and DIR/gguf/NAME.json holds what transformers makes of it.

    tiny_gguf_seq2seq.py DIR

Needs gguf, safetensors, torch and transformers. Names and keys are those of gguf's own tables. The format does not tell from
which distance on tokens share a bucket: it is 128, as in every T5, so the golden files are not those of the folders. Searches
are kept only if their tokens stay the same in f64 and under noise on the logits.
"""

import argparse
import base64
import copy
import json
import os

import gguf
import numpy
import torch
import transformers
from safetensors.numpy import load_file
from tiny_seq2seq import TEXTS, digits, search

MODELS = ["t5", "flan_t5"]


def convert(folder: str, name: str) -> None:
    with open(os.path.join(folder, name, "config.json")) as file:
        config = json.load(file)
    with open(os.path.join(folder, name, "tokenizer.json")) as file:
        tokenizer = json.load(file)
    layers = config["num_layers"]
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, layers)
    writer = gguf.GGUFWriter(os.path.join(folder, "gguf", f"{name}.gguf"), "t5")
    writer.add_name(name)
    writer.add_context_length(512)
    writer.add_embedding_length(config["d_model"])
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_block_count(layers)
    writer.add_head_count(config["num_heads"])
    writer.add_key_length(config["d_kv"])
    writer.add_value_length(config["d_kv"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
    writer.add_decoder_start_token_id(config["decoder_start_token_id"])
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    pieces = tokenizer["model"]["vocab"]
    kind = {"<pad>": gguf.TokenType.CONTROL, "</s>": gguf.TokenType.CONTROL, "<unk>": gguf.TokenType.UNKNOWN}
    user = gguf.TokenType.USER_DEFINED
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([score for _, score in pieces])
    writer.add_token_types([kind.get(p, user if p.startswith("<extra_id_") else gguf.TokenType.NORMAL) for p, _ in pieces])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(base64.b64decode(tokenizer["normalizer"]["precompiled_charsmap"]))
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_unk_token_id(tokenizer["model"]["unk_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)
    for key, value in load_file(os.path.join(folder, name, "model.safetensors")).items():
        stem, _ = key.rsplit(".", 1)
        known = table.get_name(stem)
        if known is None:
            raise SystemExit(f"{name}: {key} has no name")
        # Vectors and biases are always f32.
        small = value.ndim == 1 or "rel_b" in known
        writer.add_tensor(f"{known}.weight", value.astype(numpy.float32) if small else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def golden(folder: str, name: str) -> None:
    path = os.path.join(folder, name)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        path, dtype=torch.float32, relative_attention_max_distance=128, attn_implementation="eager"
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    wide = copy.deepcopy(model).double()
    sources = [torch.tensor([tokenizer(text).input_ids]) for text in TEXTS[:2] + TEXTS[3:5]]
    found = []
    name_of = {1: "greedy", 4: "beam"}
    for beams in name_of:
        for source in sources:
            options = dict(num_beams=beams, max_new_tokens=14)
            output = search(model, source, options)
            if search(wide, source, options) == output and search(model, source, options, 1) == output:
                found.append(dict(name=name_of[beams], options=options, source=source[0].tolist(), output=output))
    assert len(found) >= 4 and {case["name"] for case in found} == set(name_of.values()), name
    source, decoder = sources[0], torch.tensor([max((case["output"] for case in found), key=len)[:9]])
    with torch.no_grad():
        result = model(input_ids=source, decoder_input_ids=decoder)
    rows = [0, 1, 4, decoder.shape[1] - 1]
    made = dict(
        made_by=f"tools/golden/tiny_gguf_seq2seq.py with transformers {transformers.__version__}",
        texts=[dict(text=text, ids=tokenizer(text).input_ids) for text in TEXTS],
        encoder=dict(source=source[0].tolist(), states=digits(result.encoder_last_hidden_state[0])),
        decoder=dict(tokens=decoder[0].tolist(), rows=rows, logits=digits(result.logits[0][rows])),
        cases=found,
    )
    with open(os.path.join(folder, "gguf", f"{name}.json"), "w") as file:
        json.dump(made, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")


def main() -> None:
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    folder = parser.parse_args().folder
    os.makedirs(os.path.join(folder, "gguf"), exist_ok=True)
    for name in MODELS:
        convert(folder, name)
        golden(folder, name)


if __name__ == "__main__":
    main()
