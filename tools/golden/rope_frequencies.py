"""Rotary frequencies and magnitudes that transformers computes for the ways of stretching that configurations ask for.

    rope_frequencies.py OUT.json

Needs torch and transformers. Each case is a `config.json`, cut down to what matters, with its inverse frequencies.
"""

import json
import sys

import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

BASE = dict(hidden_size=512, num_attention_heads=4, head_dim=128, max_position_embeddings=32768, rope_theta=1e6)
LLAMA31 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)

CASES = [
    {},
    dict(rope_theta=1e4, head_dim=64),
    dict(rope_scaling=dict(rope_type="linear", factor=4.0)),
    dict(rope_theta=5e5, max_position_embeddings=131072, rope_scaling=LLAMA31),
    dict(rope_theta=5e5, head_dim=64, max_position_embeddings=131072, rope_scaling={**LLAMA31, "factor": 32.0}),
    dict(rope_scaling=YARN),
    dict(rope_scaling=dict(rope_type="yarn", factor=4.0)),
    dict(rope_scaling={**YARN, "attention_factor": 1.25}),
    dict(rope_scaling={**YARN, "beta_fast": 16.0, "beta_slow": 2.0}),
    dict(rope_scaling={**YARN, "truncate": False}),
    dict(rope_scaling={**YARN, "mscale": 0.707, "mscale_all_dim": 1.0}),
    dict(rope_scaling={**YARN, "factor": 1.0}),
]


def main() -> None:
    out = []
    for case in CASES:
        settings = {**BASE, **case}
        config = transformers.LlamaConfig(**settings)
        kind = config.rope_parameters["rope_type"]
        if kind == "default":
            rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
            frequencies, magnitude = rotary.inv_freq, rotary.attention_scaling
        else:
            frequencies, magnitude = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
        out.append(
            dict(
                config=dict(model_type="llama", **settings),
                magnitude=float(magnitude),
                inverse_frequencies=[float(f"{value:.8g}") for value in frequencies.tolist()],
            )
        )
    with open(sys.argv[1], "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
