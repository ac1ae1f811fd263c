"""Speed of an encoder-decoder beside transformers, in turns on one machine: tokens per second of greedy and beam search.

    cargo build --release -p kun-engine --example seq2seq_speed
    python benches/compare_seq2seq.py target/release/examples/seq2seq_speed [--threads 2] [--rounds 3]

The model has t5-small's shape and random weights, made here; both programs read the same folder and answer the same
sources with exactly as many tokens (no end of text). A line gives the median of the rounds.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time

import torch
import transformers

NEW_TOKENS = 48


def make(folder: str) -> None:
    config = transformers.T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1, feed_forward_proj="relu",
    )
    torch.manual_seed(1)
    model = transformers.T5ForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(f"w{i}", -float(i)) for i in range(32000)]
    transformers.T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder)


def peer(folder: str, sources: list[list[int]], beams: int, threads: int):
    torch.set_num_threads(threads)
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()

    def run() -> float:
        ids = torch.tensor(sources)
        started = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), num_beams=beams, do_sample=False,
                       min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS)
        return time.perf_counter() - started

    return run


def ours(program: str, folder: str, sources: list[list[int]], beams: int, threads: int) -> float:
    request = dict(sources=sources, beams=beams, threads=threads, new_tokens=NEW_TOKENS)
    out = subprocess.run([program, folder, json.dumps(request)], check=True, capture_output=True, text=True).stdout
    return float(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        for count, length, beams in [(1, 32, 1), (1, 32, 4), (4, 64, 4), (1, 256, 4)]:
            sources = torch.randint(3, 32000, (count, length)).tolist()
            theirs = peer(folder, sources, beams, args.threads)
            theirs()
            times = [(ours(args.program, folder, sources, beams, args.threads), theirs()) for _ in range(args.rounds)]
            mine, other = (statistics.median(column) for column in zip(*times))
            tokens = count * NEW_TOKENS
            print(f"{count} sources of {length} tokens, {beams} beams: kun {tokens / mine:.1f} tokens/s, "
                  f"transformers {tokens / other:.1f} tokens/s, ratio {other / mine:.2f}", flush=True)


if __name__ == "__main__":
    main()
