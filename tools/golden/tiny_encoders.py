"""Tiny random-weight encoders of every architecture and head with what transformers computes for them.

    tiny_encoders.py OUT_DIR

Needs torch, transformers, safetensors and numpy. Weights are drawn from a fixed seed and rounded so that f32, f16 and
bf16 all hold them exactly; half of the folders store f16. For each model OUT_DIR gets `NAME/config.json`,
`NAME/model.safetensors` (and the files of sentence-transformers, where it has some) and `NAME/golden.json`: texts as token
ids with their types, and the output for each: the embedding, or logits.
tiny_gguf_encoders.py makes GGUF files of some.
"""

import argparse
import json
import os

import torch
import transformers
from safetensors.torch import save_file

COMMON = dict(
    hidden_size=16,
    intermediate_size=28,
    num_hidden_layers=2,
    num_attention_heads=2,
    vocab_size=61,
    max_position_embeddings=48,
    pad_token_id=1,
    num_labels=3,
)
DISTIL = dict(
    dim=16, hidden_dim=28, n_layers=2, n_heads=2, vocab_size=61, max_position_embeddings=48, pad_token_id=1, num_labels=3
)
DEBERTA = dict(
    relative_attention=True,
    pos_att_type=["p2c", "c2p"],
    position_biased_input=False,
    type_vocab_size=0,
    share_att_key=True,
    norm_rel_ebd="layer_norm",
    position_buckets=8,
    max_relative_positions=-1,
    pooler_hidden_act="gelu",
    pooler_hidden_size=16,
)
BASE, SEQUENCE, TOKENS, SPAN = "AutoModel", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"

# Configuration class, settings, head.
MODELS = {
    "bert": ("BertConfig", {}, BASE),
    "bert_sequence": ("BertConfig", dict(hidden_act="gelu_new"), SEQUENCE),
    "bert_tokens": ("BertConfig", {}, TOKENS),
    "bert_span": ("BertConfig", dict(num_labels=2), SPAN),
    "roberta_sequence": ("RobertaConfig", dict(type_vocab_size=1), SEQUENCE),
    "xlm_roberta_tokens": ("XLMRobertaConfig", dict(type_vocab_size=1), TOKENS),
    "distilbert_sequence": ("DistilBertConfig", {}, SEQUENCE),
    "distilbert_span": ("DistilBertConfig", dict(num_labels=2), SPAN),
    "mpnet": ("MPNetConfig", {}, BASE),
    "mpnet_sequence": ("MPNetConfig", {}, SEQUENCE),
    "electra_sequence": ("ElectraConfig", dict(embedding_size=8), SEQUENCE),
    "electra_tokens": ("ElectraConfig", dict(embedding_size=16), TOKENS),
    "albert_sequence": ("AlbertConfig", dict(embedding_size=8, num_hidden_layers=3), SEQUENCE),
    "modernbert": ("ModernBertConfig", dict(local_attention=8, num_hidden_layers=4), BASE),
    "modernbert_sequence": (
        "ModernBertConfig",
        dict(local_attention=6, num_hidden_layers=3, classifier_pooling="mean", norm_bias=True, attention_bias=True),
        SEQUENCE,
    ),
    "modernbert_tokens": ("ModernBertConfig", dict(local_attention=8, mlp_bias=True, classifier_bias=True), TOKENS),
    "nomic_bert": ("NomicBertConfig", {}, BASE),
    "gte_sequence": ("GteConfig", {}, SEQUENCE),
    "jina_v3": ("JinaEmbeddingsV3Config", {}, BASE),
    "deberta_v3_sequence": ("DebertaV2Config", DEBERTA, SEQUENCE),
    "deberta_v2_tokens": (
        "DebertaV2Config",
        {**DEBERTA, "share_att_key": False, "position_buckets": -1, "max_relative_positions": 12, "norm_rel_ebd": "none",
         "position_biased_input": True, "type_vocab_size": 2},
        TOKENS,
    ),
}

# Decoders that embed: configuration class, settings.
DECODERS = {
    "qwen3_embedding": ("Qwen3Config", dict(head_dim=12, num_key_value_heads=1)),
    "mistral_embedding": ("MistralConfig", dict(num_key_value_heads=2, sliding_window=9)),
}

POOLING = {"cls": 0, "mean": 1, "max": 2, "mean_sqrt_len_tokens": 3, "weightedmean": 4, "lasttoken": 5}


def draw(model, generator: torch.Generator) -> None:
    with torch.no_grad():
        for key, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if "norm" in key.lower() and key.endswith("weight"):
                drawn = 1 + 0.2 * drawn
            elif value.dim() == 1:
                drawn = 0.3 * drawn
            elif "embeddings" in key:
                drawn = 0.5 * drawn
            elif "relative_attention_bias" in key:
                drawn = 0.8 * drawn
            else:
                drawn = 1.3 * drawn / value.shape[-1] ** 0.5
            drawn = drawn.to(torch.bfloat16).float()
            drawn[drawn.abs() < 2.0**-12] = 0
            value.copy_(drawn)


def texts(config, generator: torch.Generator) -> list[dict]:
    made = []
    types = getattr(config, "type_vocab_size", 0) or 0
    longest = config.max_position_embeddings - 2
    for length in [2, 1, 5, 9, 17, 33, longest]:
        # Not the padding token, from which some models count positions.
        ids = torch.randint(2, config.vocab_size, (length,), generator=generator).tolist()
        kinds = [0] * length
        if types > 1:
            kinds = [int(i >= length // 2) for i in range(length)]
        made.append(dict(ids=ids, types=kinds))
    return made


def run(model, text: dict, with_types: bool):
    inputs = dict(input_ids=torch.tensor([text["ids"]]), attention_mask=torch.ones(1, len(text["ids"]), dtype=torch.long))
    if with_types:
        inputs["token_type_ids"] = torch.tensor([text["types"]])
    with torch.no_grad():
        return model(**inputs)


def write(folder: str, model, config, dtype: torch.dtype) -> None:
    os.makedirs(folder, exist_ok=True)
    state = {k: v.detach().to(dtype).contiguous().clone() for k, v in model.state_dict().items()}
    state.pop("cls.predictions.decoder.weight", None)
    save_file({k: v for k, v in state.items() if v.is_floating_point()}, os.path.join(folder, "model.safetensors"))
    settings = config.to_diff_dict()
    settings.pop("transformers_version", None)
    settings.pop("dtype", None)
    for key in ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
                "max_position_embeddings", "embedding_size", "type_vocab_size", "pad_token_id"]:
        if hasattr(config, key) and key not in settings and not isinstance(config, transformers.DistilBertConfig):
            settings[key] = getattr(config, key)
    settings["architectures"] = [type(model).__name__]
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(settings, file, indent=1, sort_keys=True)


def pool(states: torch.Tensor, how: str) -> torch.Tensor:
    n = states.shape[0]
    if how == "cls":
        return states[0]
    if how == "lasttoken":
        return states[-1]
    if how == "max":
        return states.max(dim=0).values
    if how == "mean_sqrt_len_tokens":
        return states.sum(dim=0) / n**0.5
    if how == "weightedmean":
        weights = torch.arange(1, n + 1).float()
        return (states * weights[:, None]).sum(dim=0) / weights.sum()
    return states.mean(dim=0)


def dump(folder: str, golden: list[dict]) -> None:
    with open(os.path.join(folder, "golden.json"), "w") as file:
        json.dump(golden, file)


def numbers(values: torch.Tensor) -> list:
    return [float(f"{v:.7g}") for v in values.flatten().tolist()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    out = parser.parse_args().out
    for seed, (name, (config_class, settings, head)) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(seed + 1)
        common = DISTIL if config_class == "DistilBertConfig" else COMMON
        config = getattr(transformers, config_class)(**{**common, **settings})
        config._attn_implementation = "eager"
        auto = transformers.AutoModel if head == BASE else getattr(transformers, f"AutoModel{head}")
        model = auto.from_config(config).eval().float()
        draw(model, generator)
        folder = os.path.join(out, name)
        write(folder, model, config, torch.float16 if seed % 2 else torch.float32)
        golden = texts(config, generator)
        with_types = (getattr(config, "type_vocab_size", 0) or 0) > 1 and config_class not in ("GteConfig",)
        for text in golden:
            result = run(model, text, with_types)
            if head == BASE:
                output = torch.nn.functional.normalize(result.last_hidden_state[0].mean(dim=0), dim=0)
            elif head == SPAN:
                output = torch.stack([result.start_logits[0], result.end_logits[0]], dim=-1)
            else:
                output = result.logits[0]
            text["output"] = numbers(output)
        dump(folder, golden)
        if name == "bert":
            for index, decoder_name in enumerate(DECODERS):
                decoder(os.path.join(out, decoder_name), decoder_name, 200 + index)
            for how in POOLING:
                sentence(os.path.join(out, f"sentence_{how}"), model, config, how, golden)


def decoder(folder: str, name: str, seed: int) -> None:
    """A folder of sentence-transformers around a decoder's layers: the last token's row, at length 1."""
    config_class, settings = DECODERS[name]
    generator = torch.Generator().manual_seed(seed)
    config = getattr(transformers, config_class)(**{**COMMON, "bos_token_id": 1, "eos_token_id": 2, **settings})
    config._attn_implementation = "eager"
    model = transformers.AutoModel.from_config(config).eval().float()
    draw(model, generator)
    write(folder, model, config, torch.float16)
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        stored = json.load(file)
    stored.update({k: getattr(config, k) for k in ["num_key_value_heads", "rms_norm_eps", "head_dim", "sliding_window"]
                   if getattr(config, k, None) is not None})
    with open(path, "w") as file:
        json.dump(stored, file, indent=1, sort_keys=True)
    kind = "sentence_transformers.models."
    modules = [(kind + "Transformer", ""), (kind + "Pooling", "1_Pooling"), (kind + "Normalize", "2_Normalize")]
    with open(os.path.join(folder, "modules.json"), "w") as file:
        json.dump([dict(idx=i, name=str(i), path=p, type=t) for i, (t, p) in enumerate(modules)], file)
    os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
    with open(os.path.join(folder, "1_Pooling", "config.json"), "w") as file:
        json.dump(dict(word_embedding_dimension=16, pooling_mode_lasttoken=True), file)
    golden = texts(config, generator)
    for text in golden:
        states = run(model, text, False).last_hidden_state[0]
        text["output"] = numbers(torch.nn.functional.normalize(states[-1], dim=0))
    dump(folder, golden)


WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a the fox red den live ##s ##ing in where do cat sleep on mat rain fall sea blue is sky "
    "why river run ##ner bird sing tree green leaf stone cold warm sun moon star night day query : ? . , ##e ##d b c e x y "
    "z \u6f22 \u5b57 \u00e9 1 2"
).split()


def tokenizer(folder: str) -> None:
    """Word pieces for the vocabulary of 61 tokens, prompts, and a limit of 32 tokens."""
    special = lambda name, kind: {"SpecialToken": {"id": name, "type_id": kind}}
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    one = [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)]
    added = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    tokens = {name: dict(id=name, ids=[i], tokens=[name]) for i, name in [(2, "[CLS]"), (3, "[SEP]")]}
    made = dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=[dict(id=i, content=word, **added) for i, word in enumerate(WORDS[:5])],
        normalizer=dict(type="BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True),
        pre_tokenizer=dict(type="BertPreTokenizer"),
        post_processor=dict(
            type="TemplateProcessing", single=one, pair=[*one, text("B", 1), special("[SEP]", 1)], special_tokens=tokens
        ),
        decoder=dict(type="WordPiece", prefix="##", cleanup=True),
        model=dict(
            type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##", max_input_chars_per_word=100,
            vocab={word: i for i, word in enumerate(WORDS)},
        ),
    )
    for name, content in [
        ("tokenizer.json", made),
        ("config_sentence_transformers.json", dict(prompts=dict(query="query: ", document=""), similarity_fn_name="cosine")),
        ("sentence_bert_config.json", dict(max_seq_length=32, do_lower_case=False)),
    ]:
        with open(os.path.join(folder, name), "w") as file:
            json.dump(content, file, ensure_ascii=False)


def sentence(folder: str, model, config, how: str, texts: list[dict]) -> None:
    """A folder of sentence-transformers: another pooling each, some with dense layers, some without a norm."""
    generator = torch.Generator().manual_seed(POOLING[how] + 100)
    write(folder, model, config, torch.float16)
    if how == "cls":
        tokenizer(folder)
    kind = "sentence_transformers.models."
    modules = [(kind + "Transformer", ""), (kind + "Pooling", "1_Pooling")]
    width, layers = 16, []
    if how in ("mean", "max"):
        for index in range(2 if how == "max" else 1):
            dense = torch.nn.Linear(width, 12 - 4 * index, bias=index == 0)
            draw(dense, generator)
            function = "torch.nn.modules.activation.Tanh" if index == 0 else "torch.nn.modules.linear.Identity"
            path = f"{2 + index}_Dense"
            os.makedirs(os.path.join(folder, path), exist_ok=True)
            weights = {"linear." + k: v.detach().contiguous().clone() for k, v in dense.state_dict().items()}
            save_file(weights, os.path.join(folder, path, "model.safetensors"))
            settings = dict(in_features=width, out_features=dense.out_features, bias=index == 0, activation_function=function)
            with open(os.path.join(folder, path, "config.json"), "w") as file:
                json.dump(settings, file)
            layers.append((dense, index == 0))
            modules.append((kind + "Dense", path))
            width = dense.out_features
    normalize = how not in ("weightedmean", "lasttoken")
    if normalize:
        modules.append((kind + "Normalize", f"{len(modules)}_Normalize"))
    with open(os.path.join(folder, "modules.json"), "w") as file:
        json.dump([dict(idx=i, name=str(i), path=p, type=t) for i, (t, p) in enumerate(modules)], file)
    os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
    names = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "weightedmean": "weightedmean_tokens"}
    pooling = {f"pooling_mode_{names.get(k, k)}": k == how for k in POOLING}
    with open(os.path.join(folder, "1_Pooling", "config.json"), "w") as file:
        json.dump(dict(word_embedding_dimension=16, **pooling), file)
    golden = []
    for text in texts:
        with torch.no_grad():
            y = pool(run(model, text, True).last_hidden_state[0], how)
            for dense, tanh in layers:
                y = torch.tanh(dense(y)) if tanh else dense(y)
            if normalize:
                y = torch.nn.functional.normalize(y, dim=0)
        golden.append(dict(ids=text["ids"], types=text["types"], output=numbers(y)))
    dump(folder, golden)


if __name__ == "__main__":
    main()
