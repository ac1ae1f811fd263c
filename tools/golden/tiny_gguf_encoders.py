"""The tiny encoders as llama.cpp's converter writes them: DIR/NAME (a folder of tiny_encoders.py or tiny_rankers.py) becomes
DIR/gguf/NAME.gguf, whose outputs are those of DIR/NAME/golden.json.

    tiny_gguf_encoders.py DIR

Needs gguf, safetensors and numpy. Names and keys are those of gguf's own tables; vocabularies are made up.
"""

import argparse
import json
import os

import gguf
import numpy
from safetensors.numpy import load_file

POOLING = gguf.PoolingType
# Folder, architecture, pooling.
MODELS = [
    ("bert", "BERT", POOLING.MEAN),
    ("sentence_cls", "BERT", POOLING.CLS),
    ("roberta_sequence", "BERT", POOLING.RANK),
    ("nomic_bert", "NOMIC_BERT", POOLING.MEAN),
    ("jina_v2", "JINA_BERT_V2", POOLING.MEAN),
    ("jina_v3", "JINA_BERT_V3", POOLING.MEAN),
    ("modernbert", "MODERN_BERT", POOLING.MEAN),
    ("qwen3_embedding", "QWEN3", POOLING.LAST),
    ("qwen3_logit_score", "QWEN3", POOLING.RANK),
    ("qwen3_sequence", "QWEN3", POOLING.RANK),
]
# What the tables do not know of these folders.
EXTRA = {
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
    "score": "cls.output",
    "post_mlp_layernorm": "layer_output_norm",
}


def joined(state: dict, layer: str, parts: list[str], name: str) -> None:
    """One matrix of queries above keys above values."""
    for kind in ("weight", "bias"):
        found = [state.pop(f"{layer}.{part}.{kind}", None) for part in parts]
        if found[0] is not None:
            state[f"{name}.{kind}"] = numpy.concatenate(found)


def convert(folder: str, name: str, architecture: str, pooling) -> None:
    with open(os.path.join(folder, name, "config.json")) as file:
        config = json.load(file)
    state = load_file(os.path.join(folder, name, "model.safetensors"))
    arch = getattr(gguf.MODEL_ARCH, architecture)
    layers = config["num_hidden_layers"]
    table = gguf.get_tensor_name_map(arch, layers)
    os.makedirs(os.path.join(folder, "gguf"), exist_ok=True)
    writer = gguf.GGUFWriter(os.path.join(folder, "gguf", f"{name}.gguf"), gguf.MODEL_ARCH_NAMES[arch])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_pooling_type(pooling)
    rope = config.get("rope_parameters") or {}
    if architecture == "QWEN3":
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(config.get("norm_eps", config.get("layer_norm_eps", 1e-5 if "modern" in name else 1e-12)))
        writer.add_causal_attention(False)
    if architecture == "MODERN_BERT":
        writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        writer.add_sliding_window(config["local_attention"])
        writer.add_sliding_window_pattern(3)
    elif "rope_theta" in rope:
        writer.add_rope_freq_base(rope["rope_theta"])
    vocabulary = config["vocab_size"]
    if architecture == "QWEN3":
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list([f"w{i}" for i in range(vocabulary)])
        writer.add_token_types([1] * vocabulary)
        writer.add_token_merges(["w 1"])
        if pooling == POOLING.RANK and "lm_head.weight" in state:
            state["score.weight"] = state.pop("lm_head.weight")[[7, 11]]
    else:
        writer.add_tokenizer_model("bert")
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + [f"\u2581w{i}" for i in range(vocabulary - 4)]
        writer.add_token_list(tokens)
        writer.add_token_types([3, 2, 3, 3] + [1] * (vocabulary - 4))
    if pooling != POOLING.RANK:
        state = {key: value for key, value in state.items() if not key.startswith("pooler.")}
    if config["model_type"] == "roberta":
        # Positions count from the padding token's id on: the rows before are never read.
        places = "roberta.embeddings.position_embeddings.weight"
        state[places] = state[places][config["pad_token_id"] + 1 :]
    for root in ("bert.", "roberta.", "model."):
        state = {key.removeprefix(root): value for key, value in state.items()}
    for layer in range(layers):
        at = f"blk.{layer}"
        if architecture in ("NOMIC_BERT", "JINA_BERT_V3"):
            parts = [f"self_attn.{p}_proj" for p in "qkv"]
            joined(state, f"layers.{layer}", parts, f"{at}.attn_qkv")
            for old, new in [("self_attn.o_proj", "attn_output"), ("post_attention_layernorm", "attn_output_norm"),
                             ("post_mlp_layernorm", "layer_output_norm"), ("mlp.gate_proj", "ffn_gate"),
                             ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"), ("mlp.fc1", "ffn_up"),
                             ("mlp.fc2", "ffn_down")]:
                for kind in ("weight", "bias"):
                    if (value := state.pop(f"layers.{layer}.{old}.{kind}", None)) is not None:
                        state[f"{at}.{new}.{kind}"] = value
        if architecture == "JINA_BERT_V2":
            gated = state.pop(f"encoder.layer.{layer}.mlp.gated_layers.weight")
            state[f"{at}.ffn_gate.weight"], state[f"{at}.ffn_up.weight"] = numpy.split(gated, 2)
            for kind in ("weight", "bias"):
                state[f"{at}.ffn_down.{kind}"] = state.pop(f"encoder.layer.{layer}.mlp.wo.{kind}")
                state[f"{at}.layer_output_norm.{kind}"] = state.pop(f"encoder.layer.{layer}.mlp.layernorm.{kind}")
    for key, value in state.items():
        stem, kind = key.rsplit(".", 1)
        known = stem if stem.startswith("blk.") else EXTRA.get(stem) or table.get_name(stem) or table.get_name(f"model.{stem}")
        if known is None:
            raise SystemExit(f"{name}: {key} has no name")
        # Vectors are always f32.
        writer.add_tensor(f"{known}.{kind}", value.astype(numpy.float32) if value.ndim == 1 else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    folder = parser.parse_args().folder
    for model in MODELS:
        convert(folder, *model)


if __name__ == "__main__":
    main()
