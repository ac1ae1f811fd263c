#!/usr/bin/env python3
"""`kun map` beside the engine alone and beside three Python ways, interleaved in one run.

    benches/compare_bulk.py --kun target/release/kun --model FOLDER [--rows 4000] [--rounds 3] [--ways kun,engine,loop,datasets,ray]
    benches/compare_bulk.py --kun target/release/kun --detect detect.onnx [--pictures 2000] [--rounds 3]

The first embeds the sentences of STS-B, AG News and FLORES in ../shared/eval/text; FOLDER is a folder of
sentence-transformers, such as all-minilm-l6-v2's. `engine` is `kun bench --texts`, `loop` is sentence-transformers'
`encode` in chunks of 1,024 texts, `datasets` is `datasets.map`, `ray` is Ray Data's `map_batches`. The second finds
things in made-up JPEGs of 640 x 480 pixels; `engine` is `kun bench detect.onnx --images FOLDER`: read, decoded, resized, run
and answered by the engine, without tables, a plan or an output; `network` is the network alone, as the same command measures
it. Rates are rows a second with the model loaded; the last columns divide by the engine's and the network's.
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


def mapped(args, source, folder, call) -> float:
    out = folder / "out.parquet"
    for old in (out, folder / "out.parquet.kun"):
        subprocess.run(["rm", "-rf", str(old)], check=True)
    command = [args.kun, "map", str(source), "--with", call, "-o", str(out), "--json", "--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["rows_per_s"]


def kun_map(args, source, folder) -> float:
    return mapped(args, source, folder, f"embed(text, model = '{args.model}', truncate = true) as v")


def engine(args, source, folder) -> float:
    cases = folder / "cases.json"
    cases.write_text(json.dumps([{"name": "all", "texts": source.read_text().splitlines(), "batch": 4096}]))
    command = [args.kun, "bench", args.model, "--texts", str(cases), "-r", "1", "--json", "--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["cases"][0]["texts_per_s"]


def kun_detect(args, source, folder) -> float:
    return mapped(args, source, folder, f"detect(image, model = '{args.detect}') as things")


def kun_images(args, source, folder) -> tuple[float, float]:
    command = [args.kun, "bench", args.detect, "--images", str(source), "-r", "1", "--json", "--threads", str(args.threads)]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return done["time"]["pictures_per_s"], done["network"]["items_per_s"]


def pictures(folder: pathlib.Path, count: int) -> None:
    import numpy
    from PIL import Image, ImageDraw

    folder.mkdir()
    random = numpy.random.default_rng(7)
    for at in range(count):
        cells = random.integers(0, 256, (12, 16, 3), dtype=numpy.uint8)
        picture = Image.fromarray(cells).resize((640, 480), Image.BICUBIC)
        draw = ImageDraw.Draw(picture)
        for _ in range(6):
            x, y, w, h = (int(n) for n in random.integers((0, 0, 20, 20), (640, 480, 200, 200)))
            draw.ellipse([x, y, x + w, y + h], fill=tuple(int(n) for n in random.integers(0, 256, 3)))
        picture.save(folder / f"{at:06}.jpg", quality=88)


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
        def __init__(self, folder, threads):
            import torch
            from sentence_transformers import SentenceTransformer
            torch.set_num_threads(threads)
            self.model = SentenceTransformer(folder, device="cpu")
        def __call__(self, rows):
            rows["v"] = self.model.encode(list(rows["text"]))
            return rows
    table = ray.data.from_items([{"text": text} for text in texts])
    table = table.map_batches(
        Embed, fn_constructor_args=(sys.argv[3], int(sys.argv[4])), batch_size=1024, concurrency=1
    )
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
    parser.add_argument("--model")
    parser.add_argument("--detect")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--python", default="python3")
    parser.add_argument("--texts", type=pathlib.Path, default=pathlib.Path("../shared/eval/text"))
    parser.add_argument("--rows", type=int, default=0, help="texts at most; 0: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", default="kun,engine,loop,datasets,ray")
    args = parser.parse_args()
    ways = {"kun": kun_map, "engine": engine, **{way: python(way) for way in ("loop", "datasets", "ray")}}
    wanted = args.ways.split(",")
    if args.detect:
        ways = wanted = {"kun": kun_detect, "engine": kun_images}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = folder / ("pictures" if args.detect else "texts.txt")
        if args.detect:
            pictures(source, args.pictures)
        else:
            texts = sentences(args.texts)[: args.rows or None]
            source.write_text("".join(f"{text}\n" for text in texts))
            print(f"{len(texts)} texts, {args.threads} threads")
        rates = {way: [] for way in wanted}
        for _ in range(args.rounds):
            for way in wanted:
                began = time.time()
                rate = ways[way](args, source, folder)
                if isinstance(rate, tuple):
                    rate, network = rate
                    rates.setdefault("network", []).append(network)
                rates[way].append(rate)
                print(f"  {way:<10} {rate:9.1f} rows/s  ({time.time() - began:.1f} s with loading)", flush=True)
    bases = {way: statistics.median(rates[way]) for way in ("engine", "network") if way in rates}
    for way, all_rates in rates.items():
        median = statistics.median(all_rates)
        ratios = "".join(f"  {median / base:.3f} of the {name}" for name, base in bases.items())
        print(f"{way:<10} {median:9.1f} rows/s{ratios}")


if __name__ == "__main__":
    main()
