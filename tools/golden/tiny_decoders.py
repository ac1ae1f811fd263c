"""Tiny random-weight decoders with the logits that transformers computes for them, as safetensors folder and as GGUF.

    tiny_decoders.py OUT_DIR [--check]

Needs torch, transformers, safetensors, gguf and numpy; `--check` also runs the GGUF files in llama.cpp (llama-cpp-python)
and prints how far its logits are from those of transformers. Weights are drawn from a fixed seed and rounded so that
f32, f16 and bf16 all hold them exactly: both files hold the same model to the last bit.

For each model OUT_DIR gets `NAME/hf/`, `NAME/NAME.gguf` and `NAME/golden.json` with the token ids, the positions whose
logits are kept, and these logits in f32.
"""

import argparse
import json
import os
import shutil
import tempfile

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Q

TOKENS = 80
# The first positions, the ends of windows and pages, and the last.
ROWS = [0, 1, 2, 3, 7, 15, 16, 23, 24, 31, 47, 63, 64, 65, 79]

COMMON = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=96,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
YARN_ROPE = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)

# Configuration class, GGUF architecture, settings, type in safetensors, type in GGUF, configuration as written by
# transformers 4 (`old`) or 5.
MODELS = {
    "llama2": ("LlamaConfig", "llama", dict(num_key_value_heads=4), "float16", Q.F16, "old"),
    "llama3": (
        "LlamaConfig",
        "llama",
        dict(head_dim=16, rope_theta=500000.0, rope_scaling=LLAMA3_ROPE),
        "bfloat16",
        Q.F16,
        "old",
    ),
    "llama_linear_bias": (
        "LlamaConfig",
        "llama",
        dict(rope_scaling=dict(rope_type="linear", factor=4.0), attention_bias=True, mlp_bias=True),
        "float16",
        Q.F16,
        "new",
    ),
    "mistral": ("MistralConfig", "llama", dict(sliding_window=24), "bfloat16", Q.F16, "old"),
    "smollm2": (
        "LlamaConfig",
        "llama",
        dict(rope_theta=100000.0, tie_word_embeddings=True, num_key_value_heads=1),
        "float32",
        Q.F32,
        "new",
    ),
    "smollm3": (
        "SmolLM3Config",
        "smollm3",
        dict(num_hidden_layers=4, rope_theta=5000000.0, tie_word_embeddings=True),
        "bfloat16",
        Q.F16,
        "new",
    ),
    "qwen2": ("Qwen2Config", "qwen2", dict(rope_theta=1000000.0), "bfloat16", Q.F16, "old"),
    "qwen2_yarn": (
        "Qwen2Config",
        "qwen2",
        dict(num_attention_heads=2, num_key_value_heads=1, rope_theta=10000.0, rope_scaling=YARN_ROPE),
        "bfloat16",
        Q.F16,
        "old",
    ),
    "qwen3": (
        "Qwen3Config",
        "qwen3",
        dict(head_dim=16, rope_theta=1000000.0, rms_norm_eps=1e-6, tie_word_embeddings=True),
        "bfloat16",
        Q.BF16,
        "new",
    ),
}


def make(name: str, seed: int) -> tuple[transformers.PreTrainedModel, torch.Tensor]:
    class_name, _, settings, *_ = MODELS[name]
    config = getattr(transformers, class_name)(**{**COMMON, **settings})
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if "norm" in key:
                drawn = 1 + 0.2 * drawn
            elif key.endswith("bias"):
                drawn = 0.3 * drawn
            elif "embed_tokens" in key or "lm_head" in key:
                drawn = 0.04 * drawn
            else:
                # Wide enough that attention picks positions: a wrong rotation must show.
                gain = 0.9 if "q_proj" in key or "k_proj" in key else 1.0
                drawn = gain * drawn / value.shape[-1] ** 0.5
            drawn = drawn.to(torch.bfloat16).float()
            drawn[drawn.abs() < 2.0**-12] = 0
            value.copy_(drawn)
    tokens = torch.randint(3, config.vocab_size, (TOKENS,), generator=generator)
    return model, tokens


def write_folder(name: str, model: transformers.PreTrainedModel, folder: str) -> None:
    *_, dtype, _, style = MODELS[name]
    # One model in shards.
    shard = "20KB" if name == "smollm3" else "1GB"
    stored = model.to(getattr(torch, dtype))
    stored.save_pretrained(folder, max_shard_size=shard)
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        config = json.load(file)
    config.pop("transformers_version", None)
    if style == "old":
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = rope if rope.pop("rope_type") != "default" else None
        if config["rope_scaling"] is not None:
            kind = MODELS[name][2]["rope_scaling"]["rope_type"]
            config["rope_scaling"]["type" if kind == "yarn" else "rope_type"] = kind
        config["torch_dtype"] = config.pop("dtype")
    with open(path, "w") as file:
        json.dump(config, file, indent=1)
        file.write("\n")


def to_neighbours(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the rows of each head so that elements that turn together are neighbours, as llama.cpp wants them."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def llama3_divisors(config) -> np.ndarray:
    """By how much llama.cpp must divide each frequency: it knows this scaling only as a tensor."""
    rope = config.rope_parameters
    head_dim = config.head_dim
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - kept) / rope["factor"] + kept)).astype(np.float32)


def write_gguf(name: str, model: transformers.PreTrainedModel, path: str, matrix_type: Q) -> None:
    arch = MODELS[name][1]
    config = model.config
    rope = config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"tiny {name}")
    writer.add_license("mit")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if class_window(name) is not None:
        writer.add_sliding_window(class_window(name))
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config.num_hidden_layers)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = value.float().numpy()
        if arch in ("llama", "smollm3"):
            if "q_proj" in key:
                values = to_neighbours(values, config.num_attention_heads)
            elif "k_proj" in key:
                values = to_neighbours(values, config.num_key_value_heads)
        target = names.get_name(key, try_suffixes=(".weight", ".bias"))
        dtype = matrix_type if values.ndim == 2 else Q.F32
        writer.add_tensor(target, gguf.quants.quantize(np.ascontiguousarray(values), dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def class_window(name: str) -> int | None:
    return MODELS[name][2].get("sliding_window")


def logits_of(model: transformers.PreTrainedModel, tokens: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(tokens[None]).logits[0].numpy()


def llama_cpp_logits(path: str, tokens: list[int], vocab: int) -> np.ndarray:
    """Every row of logits from llama.cpp with an f32 cache, one token at a time."""
    import ctypes

    import llama_cpp as lc

    lc.llama_backend_init()
    model_params = lc.llama_model_default_params()
    model = lc.llama_model_load_from_file(path.encode(), model_params)
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 128, 1, 1
    params.type_k = params.type_v = 0
    params.flash_attn_type = 0
    context = lc.llama_init_from_model(model, params)
    rows = []
    for token in tokens:
        one = (ctypes.c_int32 * 1)(token)
        assert lc.llama_decode(context, lc.llama_batch_get_one(one, 1)) == 0
        rows.append(np.ctypeslib.as_array(lc.llama_get_logits(context), shape=(vocab,)).copy())
    lc.llama_free(context)
    lc.llama_model_free(model)
    return np.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    for seed, name in enumerate(MODELS):
        folder = os.path.join(args.out_dir, name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        model, tokens = make(name, seed)
        logits = logits_of(model, tokens)
        gguf_path = os.path.join(folder, f"{name}.gguf")
        write_gguf(name, model, gguf_path, MODELS[name][4])
        write_folder(name, model, os.path.join(folder, "hf"))
        kept = logits[ROWS]
        golden = {
            "made_by": f"tools/golden/tiny_decoders.py with transformers {transformers.__version__}",
            "tokens": tokens.tolist(),
            "rows": ROWS,
            "logits": [[float(f"{value:.7g}") for value in row] for row in kept.tolist()],
        }
        with open(os.path.join(folder, "golden.json"), "w") as file:
            json.dump(golden, file, separators=(",", ":"))
            file.write("\n")
        reloaded = transformers.AutoModelForCausalLM.from_pretrained(
            os.path.join(folder, "hf"), dtype=torch.float32, attn_implementation="eager"
        )
        again = np.abs(logits_of(reloaded.eval(), tokens) - logits).max()
        print(f"\n{name}: logits rms {kept.std():.3f}, reloaded folder differs by {again:.1e}", end="")
        if args.check:
            # In f32: llama.cpp rounds activations where weights are f16 or bf16.
            with tempfile.TemporaryDirectory() as scratch:
                exact = os.path.join(scratch, "f32.gguf")
                write_gguf(name, model.float(), exact, Q.F32)
                other = llama_cpp_logits(exact, tokens.tolist(), model.config.vocab_size)
            # llama.cpp has no sliding window for this architecture.
            until = class_window(name) or TOKENS
            print(f", llama.cpp by {np.abs(other - logits)[:until].max():.1e} up to token {until}", end="")
    print()


if __name__ == "__main__":
    main()
