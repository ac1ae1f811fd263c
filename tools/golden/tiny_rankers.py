"""Tiny random-weight decoders that rank, and Jina's second embedder, with what the reference computes for them.

    tiny_rankers.py OUT_DIR

Needs torch, transformers, tokenizers, safetensors and numpy; weights as in tiny_encoders.py. Each model gets `NAME/config.json`,
`NAME/model.safetensors` and `NAME/golden.json`. `qwen3_reranker` has a tokenizer besides, and `ranked.json`: queries and
documents with the scores that the procedure of Qwen3-Reranker's model card gives. Jina's embedder has no class in
transformers: its layers are written out here after the paper (arXiv:2310.19923, ALiBi as in arXiv:2108.12409).
"""

import argparse
import json
import math
import os

import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tiny_encoders import COMMON, draw, dump, numbers, run, texts, write

DECODER = {**COMMON, "bos_token_id": 1, "eos_token_id": 2}
KEPT = ["num_key_value_heads", "rms_norm_eps", "head_dim", "sliding_window", "tie_word_embeddings"]


def store_decoder(folder: str, model, config, dtype: torch.dtype) -> None:
    write(folder, model, config, dtype)
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        stored = json.load(file)
    stored.update({k: getattr(config, k) for k in KEPT if getattr(config, k, None) is not None})
    with open(path, "w") as file:
        json.dump(stored, file, indent=1, sort_keys=True)


def sequence(out: str, name: str, config_class: str, settings: dict, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    config = getattr(transformers, config_class)(**{**DECODER, **settings})
    config._attn_implementation = "eager"
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval().float()
    draw(model, generator)
    folder = os.path.join(out, name)
    store_decoder(folder, model, config, torch.float32)
    golden = texts(config, generator)
    for text in golden:
        text["output"] = numbers(run(model, text, False).logits[0])
    dump(folder, golden)


def causal(settings: dict, seed: int):
    generator = torch.Generator().manual_seed(seed)
    config = transformers.Qwen3Config(**{**DECODER, "head_dim": 12, "num_key_value_heads": 1, **settings})
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    draw(model, generator)
    if settings.get("tie_word_embeddings"):
        model.tie_weights()
    return model, config, generator


def logit_score(out: str) -> None:
    """A folder of sentence-transformers whose score is the logit of token 7 less that of token 11."""
    model, config, generator = causal(dict(tie_word_embeddings=False), 301)
    folder = os.path.join(out, "qwen3_logit_score")
    store_decoder(folder, model, config, torch.float16)
    modules = [("sentence_transformers.base.modules.transformer.Transformer", ""),
               ("sentence_transformers.cross_encoder.modules.logit_score.LogitScore", "1_LogitScore")]
    with open(os.path.join(folder, "modules.json"), "w") as file:
        json.dump([dict(idx=i, name=str(i), path=p, type=t) for i, (t, p) in enumerate(modules)], file)
    os.makedirs(os.path.join(folder, "1_LogitScore"), exist_ok=True)
    with open(os.path.join(folder, "1_LogitScore", "config.json"), "w") as file:
        json.dump(dict(true_token_id=7, false_token_id=11), file)
    golden = texts(config, generator)
    for text in golden:
        logits = run(model, text, False).logits[0, -1]
        text["output"] = numbers(logits[7:8] - logits[11:12])
    dump(folder, golden)


PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TASK = "Given a web search query, retrieve relevant passages that answer the query"


def reranker(out: str) -> None:
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("t", "h"), ("th", "e"), ("o", "x"), ("f", "ox")]
    words = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    vocabulary = {word: index for index, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer, made.decoder = byte_level, tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made.add_tokens(["<think>", "</think>"])
    size = made.get_vocab_size()
    model, config, _ = causal(
        dict(tie_word_embeddings=True, vocab_size=size, max_position_embeddings=2048, pad_token_id=None,
             bos_token_id=None, eos_token_id=len(words)), 302)
    folder = os.path.join(out, "qwen3_reranker")
    store_decoder(folder, model, config, torch.float16)
    made.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump(dict(eos_token="<|im_end|>", tokenizer_class="Qwen2TokenizerFast"), file)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"))
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False)
    yes, no = tokenizer.convert_tokens_to_ids("yes"), tokenizer.convert_tokens_to_ids("no")
    ranked = []
    documents = ["The fox lives in a den.", "No.", "漢字 and emoji 🦊\n\nin two paragraphs", "the the the fox fox"]
    for query, instruction in [("where do foxes live?", None), ("fox", "Is the animal named?")]:
        scores = []
        for document in documents:
            body = f"<Instruct>: {instruction or TASK}\n<Query>: {query}\n<Document>: {document}"
            tokens = ids(PREFIX) + ids(body) + ids(SUFFIX)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
            pair = torch.nn.functional.log_softmax(torch.stack([logits[no], logits[yes]]), dim=0)
            scores.append(float(pair[1].exp()))
        ranked.append(dict(query=query, instruction=instruction, documents=documents, scores=scores))
    with open(os.path.join(folder, "ranked.json"), "w") as file:
        json.dump(ranked, file, ensure_ascii=False)


def slopes(heads: int) -> list[float]:
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return slopes(closest) + slopes(2 * closest)[0::2][: heads - closest]


def jina_v2(out: str) -> None:
    generator = torch.Generator().manual_seed(303)
    d, f, layers, heads = 18, 20, 2, 3
    config = dict(model_type="bert", architectures=["JinaBertForMaskedLM"], hidden_size=d, intermediate_size=f,
                  num_hidden_layers=layers, num_attention_heads=heads, vocab_size=61, max_position_embeddings=48,
                  type_vocab_size=2, layer_norm_eps=1e-12, pad_token_id=1, position_embedding_type="alibi",
                  feed_forward_type="geglu", hidden_act="gelu")
    state = {}

    def tensor(name: str, *shape: int):
        drawn = torch.randn(shape, generator=generator)
        if "orm" in name and name.endswith("weight"):
            drawn = 1 + 0.2 * drawn
        elif len(shape) == 1:
            drawn = 0.3 * drawn
        else:
            drawn = drawn * (0.5 if "embeddings" in name else 1.3 / shape[-1] ** 0.5)
        state[name] = drawn.to(torch.bfloat16).float()
        return state[name]

    def linear(name: str, n: int, k: int, bias: bool = True):
        weight, b = tensor(f"{name}.weight", n, k), tensor(f"{name}.bias", n) if bias else None
        return lambda x: torch.nn.functional.linear(x, weight, b)

    def norm(name: str):
        weight, bias = tensor(f"{name}.weight", d), tensor(f"{name}.bias", d)
        return lambda x: torch.nn.functional.layer_norm(x, (d,), weight, bias, 1e-12)

    words, kinds = tensor("embeddings.word_embeddings.weight", 61, d), tensor("embeddings.token_type_embeddings.weight", 2, d)
    first = norm("embeddings.LayerNorm")
    stack = []
    for i in range(layers):
        name = f"encoder.layer.{i}"
        stack.append((
            [linear(f"{name}.attention.self.{part}", d, d) for part in ("query", "key", "value")],
            linear(f"{name}.attention.output.dense", d, d), norm(f"{name}.attention.output.LayerNorm"),
            linear(f"{name}.mlp.gated_layers", 2 * f, d, bias=False), linear(f"{name}.mlp.wo", d, f),
            norm(f"{name}.mlp.layernorm"),
        ))

    def model(ids: list[int], types: list[int]) -> torch.Tensor:
        x = first(words[ids] + kinds[types])
        t = len(ids)
        places = torch.arange(t)
        distance = (places[:, None] - places[None, :]).abs().float()
        bias = -torch.tensor(slopes(heads))[:, None, None] * distance
        for projections, output, after, gated, down, last in stack:
            q, k, v = [p(x).view(t, heads, d // heads).transpose(0, 1) for p in projections]
            scores = q @ k.transpose(1, 2) / (d // heads) ** 0.5 + bias
            attended = (scores.softmax(-1) @ v).transpose(0, 1).reshape(t, d)
            x = after(output(attended) + x)
            gate, up = gated(x).split(f, dim=-1)
            x = last(down(torch.nn.functional.gelu(gate) * up) + x)
        return torch.nn.functional.normalize(x.mean(dim=0), dim=0)

    golden = texts(transformers.BertConfig(**{**COMMON, "type_vocab_size": 2}), generator)
    for text in golden:
        text["output"] = numbers(model(text["ids"], text["types"]))
    folder = os.path.join(out, "jina_v2")
    os.makedirs(folder, exist_ok=True)
    save_file(state, os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=1, sort_keys=True)
    dump(folder, golden)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    out = parser.parse_args().out
    sequence(out, "qwen3_sequence", "Qwen3Config", dict(num_labels=1, head_dim=12, num_key_value_heads=1), 304)
    sequence(out, "mistral_sequence", "MistralConfig", dict(num_key_value_heads=2, sliding_window=9), 305)
    logit_score(out)
    reranker(out)
    jina_v2(out)


if __name__ == "__main__":
    main()
