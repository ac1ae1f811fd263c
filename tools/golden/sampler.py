"""Golden distributions for the sampler, made with the logits processors of transformers.

    python tools/golden/sampler.py > testdata/engine/sampler.json

Needs torch and transformers. Each case lists logits, tokens so far and options; `kept` are the ids that can be
picked and `probabilities` their chances.
"""

import json

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

CASES = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.5, "top_k": 5},
    {"top_k": 1},
    {"top_p": 0.9},
    {"top_p": 0.3, "temperature": 2.0},
    {"min_p": 0.05},
    {"min_p": 0.3, "top_p": 0.8},
    {"typical_p": 0.9},
    {"typical_p": 0.3, "temperature": 0.9},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8, "top_k": 12, "top_p": 0.95, "min_p": 0.02, "temperature": 0.6},
    {"top_k": 20, "typical_p": 0.7},
]


def processors(options):
    chain = LogitsProcessorList()
    if "repetition_penalty" in options:
        chain.append(RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
    if "temperature" in options:
        chain.append(TemperatureLogitsWarper(options["temperature"]))
    if "top_k" in options:
        chain.append(TopKLogitsWarper(options["top_k"]))
    if "top_p" in options:
        chain.append(TopPLogitsWarper(options["top_p"]))
    if "min_p" in options:
        chain.append(MinPLogitsWarper(options["min_p"]))
    if "typical_p" in options:
        chain.append(TypicalLogitsWarper(options["typical_p"]))
    return chain


def main():
    torch.manual_seed(20)
    cases = []
    for spread in (0.5, 3.0):
        for options in CASES:
            logits = (torch.randn(1, 64) * spread).float()
            history = torch.randint(0, 64, (1, 12))
            scores = processors(options)(history, logits.clone())
            chances = torch.softmax(scores.double(), dim=-1)[0]
            kept = [i for i in range(64) if torch.isfinite(scores[0, i])]
            cases.append(
                {
                    "options": options,
                    "logits": [float(x) for x in logits[0]],
                    "history": history[0].tolist(),
                    "kept": kept,
                    "probabilities": [round(float(chances[i]), 9) for i in kept],
                }
            )
    print(json.dumps(cases, separators=(",", ":")))


main()
