"""Texts per second of Kun beside sentence-transformers (torch), ONNX Runtime and OpenVINO, in one run, in turns.

    compare_encoders.py --kun target/release/kun --model FOLDER [--texts stsb.csv] [--threads 2] [--rounds 5]
                        [--only kun,torch,onnxruntime,openvino] [--shape bert-base|xlm-r-base] [--json out.json]

FOLDER holds a sentence-transformers model (config.json, tokenizer.json, model.safetensors). Every engine embeds the same
texts with the same threads: all sentences of the file (the peers sorted by length in batches of 32 and padded, as
sentence-transformers does), texts of 128 and of 512 tokens at batch 1 and 32, and one short text alone. The figure is
the median over the rounds; `ratio` is Kun's beside the best peer's. Kun runs as one process per round (`kun bench --texts`),
which times each case after one pass to warm up, so that rounds of all engines take turns. With --shape the weights are random
ones of that model's shape, and FOLDER gives only the tokenizer: both sides read the same tokens. `--rows 400` takes so many
sentences of the file. `--cpu` counts processor seconds of one thread instead of the time on the wall, for machines that are
shared: a figure is then texts per processor second. The result is a table in Markdown.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

PEERS = ["torch", "onnxruntime", "openvino"]


def sentences(path: str) -> list[str]:
    with open(path, newline="") as file:
        return [text for row in csv.reader(file) for text in row[:2]]


def long_text(tokenizer, words: list[str], tokens: int, start: int) -> str:
    """A text of exactly this many tokens, special ones included, made of words that are one token each."""
    return " ".join(words[(start * 7 + i * 13) % len(words)] for i in range(tokens - 2))


def cases(tokenizer, texts: list[str], limit: int) -> dict[str, tuple[list[str], int]]:
    """Texts and batch size by the name of the case."""
    words = sorted({w for t in texts for w in t.lower().split() if w.isalpha()})
    words = [w for w in words if len(tokenizer(w)["input_ids"]) == 3][:400]
    made = {"file": (texts, 0), "short, batch 1": (texts[:64], 1)}
    for tokens in [128, 512]:
        if tokens <= limit:
            many = [long_text(tokenizer, words, tokens, i) for i in range(32)]
            assert all(len(tokenizer(t)["input_ids"]) == tokens for t in many)
            made[f"{tokens} tokens, batch 1"] = (many[: 8 if tokens == 128 else 4], 1)
            made[f"{tokens} tokens, batch 32"] = (many, 32)
    return made


class Torch:
    def __init__(self, folder, threads):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model = SentenceTransformer(folder, device="cpu")
        self.model.max_seq_length = 512

    def embed(self, texts, batch):
        return self.model.encode(texts, batch_size=batch or 32, show_progress_bar=False, normalize_embeddings=True)


class Batched:
    """Sorts by length and pads batches, as sentence-transformers does; mean pooling in NumPy."""

    def __init__(self, folder):
        import transformers

        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def embed(self, texts, batch):
        import numpy as np

        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        out = [None] * len(texts)
        batch = batch or 32
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            feed = self.tokenizer([texts[i] for i in part], padding=True, truncation=True, max_length=512, return_tensors="np")
            feed = {k: v.astype("int64") for k, v in feed.items() if k in self.inputs}
            states = self.run(feed)
            mask = feed["attention_mask"][..., None].astype("float32")
            pooled = (states * mask).sum(1) / mask.sum(1)
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
            for row, index in zip(pooled, part):
                out[index] = row
        return np.stack(out)


def export(folder: str, out: str) -> str:
    """The model as ONNX, with symbolic batch and length."""
    path = os.path.join(out, "model.onnx")
    if os.path.exists(path):
        return path
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval().float()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    feed = tokenizer(["a text", "another longer text"], padding=True, return_tensors="pt")
    names = list(feed)

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            return self.model(**dict(zip(names, values))).last_hidden_state

    axes = {name: {0: "batch", 1: "length"} for name in names}
    torch.onnx.export(
        Wrapped(), tuple(feed.values()), path, input_names=names, output_names=["states"],
        dynamic_axes={**axes, "states": {0: "batch", 1: "length"}}, opset_version=17, dynamo=False,
    )
    return path


class OnnxRuntime(Batched):
    def __init__(self, folder, threads, path):
        import onnxruntime

        super().__init__(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [i.name for i in self.session.get_inputs()]

    def run(self, feed):
        return self.session.run(None, feed)[0]


class OpenVino(Batched):
    def __init__(self, folder, threads, path, precision):
        import openvino

        super().__init__(folder)
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self.model = core.compile_model(core.read_model(path), "CPU", settings)
        self.request = self.model.create_infer_request()
        self.inputs = [i.get_any_name() for i in self.model.inputs]

    def run(self, feed):
        return self.request.infer(feed)[self.model.output(0)]


def random_model(shape: str, tokenizer_folder: str, out: str) -> str:
    """A sentence-transformers folder of random weights with the tokenizer of another."""
    import shutil

    import torch
    import transformers

    common = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    if shape == "bert-base":
        config = transformers.BertConfig(**common, vocab_size=30522, max_position_embeddings=512)
    else:
        config = transformers.XLMRobertaConfig(**common, vocab_size=250002, max_position_embeddings=514, type_vocab_size=1)
    torch.manual_seed(1)
    folder = os.path.join(out, shape)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "modules.json"]:
        if os.path.exists(os.path.join(tokenizer_folder, name)):
            shutil.copy(os.path.join(tokenizer_folder, name), folder)
    os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
    with open(os.path.join(folder, "1_Pooling", "config.json"), "w") as file:
        json.dump(dict(word_embedding_dimension=768, pooling_mode_mean_tokens=True), file)
    return folder


def for_long_texts(folder: str, work: str, limit: int) -> str:
    """The folder with the limit that the peers are given: sentence-transformers' own may be lower."""
    import shutil

    copy = os.path.join(work, "model")
    shutil.copytree(folder, copy)
    with open(os.path.join(copy, "sentence_bert_config.json"), "w") as file:
        json.dump(dict(max_seq_length=limit, do_lower_case=False), file)
    return copy


def kun(binary: str, folder: str, threads: int, precision: str, made, work: str) -> dict[str, float]:
    """Seconds of one pass over each case."""
    path = os.path.join(work, "cases.json")
    with open(path, "w") as file:
        json.dump([dict(name=n, texts=t, batch=b) for n, (t, b) in made.items()], file)
    command = [binary, "bench", folder, "--texts", path, "-t", str(threads), "--precision", precision, "--json", "--offline"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for case in answer["cases"]:
        wanted = case["name"].split(" tokens")[0]
        assert not wanted.isdigit() or case["tokens"] == int(wanted) * case["texts"], f"{case}: cut"
    return {case["name"]: case["seconds"] for case in answer["cases"]}


def kun_cpu(binary: str, folder: str, precision: str, made, work: str) -> dict[str, float]:
    """Processor seconds of one pass over each case: what four passes take more than one."""
    path = os.path.join(work, "case.json")

    def used(passes: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [binary, "bench", folder, "--texts", path, "-t", "1", "--precision", precision, "-r", str(passes), "--json"]
        subprocess.run([*command, "--offline"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds = {}
    for name, (texts, batch) in made.items():
        with open(path, "w") as file:
            json.dump([dict(name=name, texts=texts, batch=batch)], file)
        seconds[name] = (used(4) - used(1)) / 3
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kun", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", required=True, help="a CSV file with two sentences a row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=512, help="longest text of the model")
    parser.add_argument("--only", default="kun,kun-bf16," + ",".join(PEERS) + ",openvino-bf16")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--shape", choices=["bert-base", "xlm-r-base"])
    parser.add_argument("--rows", type=int, help="only so many sentences of the file")
    parser.add_argument("--cases", default="", help="only cases whose names contain this")
    parser.add_argument("--json")
    args = parser.parse_args()
    wanted = args.only.split(",")
    clock = time.process_time if args.cpu else time.perf_counter
    args.threads = 1 if args.cpu else args.threads
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if args.threads > 1 else "false"
    import transformers

    work = tempfile.mkdtemp()
    if args.shape:
        args.model = random_model(args.shape, args.model, work)
    args.model = for_long_texts(args.model, work, args.limit)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    texts = sentences(args.texts)[: args.rows]
    made = {n: c for n, c in cases(tokenizer, texts, args.limit).items() if args.cases in n}
    engines = {}
    if "torch" in wanted:
        engines["torch"] = Torch(args.model, args.threads)
    if any(w.startswith(("onnx", "open")) for w in wanted):
        path = export(args.model, work)
        if "onnxruntime" in wanted:
            engines["onnxruntime"] = OnnxRuntime(args.model, args.threads, path)
        if "openvino" in wanted:
            engines["openvino"] = OpenVino(args.model, args.threads, path, "f32")
        if "openvino-bf16" in wanted:
            engines["openvino-bf16"] = OpenVino(args.model, args.threads, path, "bf16")
    times: dict[str, dict[str, list[float]]] = {}
    for turn in range(args.rounds):
        for name, engine in engines.items():
            for case, (texts, batch) in made.items():
                if turn == 0:
                    engine.embed(texts[: max(batch, 32)], batch)
                begun = clock()
                if batch == 0:
                    engine.embed(texts, 0)
                else:
                    for start in range(0, len(texts), batch):
                        engine.embed(texts[start : start + batch], batch)
                times.setdefault(case, {}).setdefault(name, []).append(clock() - begun)
        for name, precision in [("kun", "f32"), ("kun-bf16", "bf16"), ("kun-int8", "int8")]:
            if name in wanted:
                timed = (
                    kun_cpu(args.kun, args.model, precision, made, work)
                    if args.cpu
                    else kun(args.kun, args.model, args.threads, precision, made, work)
                )
                for case, seconds in timed.items():
                    times.setdefault(case, {}).setdefault(name, []).append(seconds)
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
    table = {}
    for case, engines_times in times.items():
        rates = {n: len(made[case][0]) / statistics.median(t) for n, t in engines_times.items()}
        plain = [r for n, r in rates.items() if n in PEERS]
        row = {n: round_rate(r) for n, r in rates.items()}
        if "kun" in rates and plain:
            row["ratio"] = round(rates["kun"] / max(plain), 2)
        if "kun-bf16" in rates and "kun" in rates:
            row["bf16 beside f32"] = round(rates["kun-bf16"] / rates["kun"], 2)
        if "kun-int8" in rates and "kun" in rates:
            row["int8 beside f32"] = round(rates["kun-int8"] / rates["kun"], 2)
        if "kun-bf16" in rates and "openvino-bf16" in rates:
            row["bf16 ratio"] = round(rates["kun-bf16"] / rates["openvino-bf16"], 2)
        table[case] = row
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    print("| texts per second | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for case, row in table.items():
        print(f"| {case} | " + " | ".join(str(row.get(name, "")) for name in columns) + " |")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(table, file, indent=1)


def round_rate(rate: float) -> float:
    return float(f"{rate:.4g}")


if __name__ == "__main__":
    main()
