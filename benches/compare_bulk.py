#!/usr/bin/env python3
"""Embeddings of many texts: `kun map` beside the engine alone and beside three Python ways, interleaved in one run.

    benches/compare_bulk.py --kun target/release/kun --model FOLDER [--rows 4000] [--rounds 3] [--ways kun,engine,loop,datasets,ray]

The texts are the sentences of STS-B, AG News and FLORES in ../shared/eval/text; FOLDER is a folder of
sentence-transformers, such as all-minilm-l6-v2's. `engine` is `kun embed`, which gives texts to the engine and writes an
array; `loop` is sentence-transformers' `encode` in chunks of 1,024 texts, `datasets` is `datasets.map`, `ray` is Ray
Data's `map_batches`. Rates are rows a second with the model loaded; the last column divides by the engine's.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time


def sentences(folder: pathlib.Path) -> list[str]:
    found = []
    for path in sorted(folder.glob("stsb-*.csv")):
        for line in path.read_text().splitlines():
            found += line.split("\t")[-2:] if "\t" in line else line.split(",")[:2]
    for path in sorted(folder.glob("agnews-*.tsv")):
        found += [line.split("\t")[-1] for line in path.read_text().splitlines()]
    for path in sorted((folder / "flores-dev").glob("*")):
        found += path.read_text().splitlines()
    # Repetitions would be computed once by one way and several times by another.
    return [text for text in dict.fromkeys(text.strip() for text in found) if text]


def kun_map(args, source, folder) -> float:
    out = folder / "out.parquet"
    for old in (out, folder / "out.parquet.kun"):
        subprocess.run(["rm", "-rf", str(old)], check=True)
    call = f"embed(text, model = '{args.model}', truncate = true) as v"
    command = [args.kun, "map", str(source), "--with", call, "-o", str(out), "--json", "--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["rows_per_s"]


def engine(args, source, folder) -> float:
    command = [args.kun, "embed", str(source), "-m", args.model, "--truncate", "-o", str(folder / "out.npy")]
    command += ["--progress", "json", "--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return next(event["rows_per_s"] for event in events if event["event"] == "finish")


PYTHON = """
import json, sys, time, torch
torch.set_num_threads(int(sys.argv[4]))
texts = open(sys.argv[2]).read().splitlines()
if sys.argv[1] != "ray":
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(sys.argv[3], device="cpu")
    model.encode(texts[:64])
if sys.argv[1] == "loop":
    began = time.time()
    for at in range(0, len(texts), 1024):
        model.encode(texts[at:at + 1024])
elif sys.argv[1] == "datasets":
    import datasets
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict({"text": texts})
    began = time.time()
    table.map(lambda rows: {"v": model.encode(rows["text"])}, batched=True, batch_size=1024, load_from_cache_file=False)
else:
    import ray
    ray.init(num_cpus=int(sys.argv[4]), log_to_driver=False, include_dashboard=False)
    class Embed:
        def __init__(self):
            import torch
            from sentence_transformers import SentenceTransformer
            torch.set_num_threads(int(sys.argv[4]))
            self.model = SentenceTransformer(sys.argv[3], device="cpu")
        def __call__(self, rows):
            rows["v"] = self.model.encode(list(rows["text"]))
            return rows
    table = ray.data.from_items([{"text": text} for text in texts]).map_batches(Embed, batch_size=1024, concurrency=1)
    # The first batches wait for the actor to load the model: timed from the first result on.
    began, first = None, 0
    for batch in table.iter_batches(batch_size=256):
        if began is None:
            began, first = time.time(), len(batch["text"])
    texts = texts[first:]
print(json.dumps(len(texts) / (time.time() - began)))
"""


def python(way):
    def run(args, source, folder) -> float:
        command = [args.python, "-c", PYTHON, way, str(source), args.model, str(args.threads)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kun", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--python", default="python3")
    parser.add_argument("--texts", type=pathlib.Path, default=pathlib.Path("../shared/eval/text"))
    parser.add_argument("--rows", type=int, default=0, help="texts at most; 0: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", default="kun,engine,loop,datasets,ray")
    args = parser.parse_args()
    ways = {"kun": kun_map, "engine": engine, **{way: python(way) for way in ("loop", "datasets", "ray")}}
    wanted = args.ways.split(",")
    texts = sentences(args.texts)[: args.rows or None]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = folder / "texts.txt"
        source.write_text("".join(f"{text}\n" for text in texts))
        print(f"{len(texts)} texts, {args.threads} threads")
        rates = {way: [] for way in wanted}
        for _ in range(args.rounds):
            for way in wanted:
                began = time.time()
                rates[way].append(ways[way](args, source, folder))
                print(f"  {way:<10} {rates[way][-1]:9.1f} rows/s  ({time.time() - began:.1f} s with loading)", flush=True)
    base = statistics.median(rates["engine"]) if "engine" in rates else None
    for way, all_rates in rates.items():
        median = statistics.median(all_rates)
        ratio = f"  {median / base:.3f} of the engine" if base else ""
        print(f"{way:<10} {median:9.1f} rows/s{ratio}")


if __name__ == "__main__":
    main()
