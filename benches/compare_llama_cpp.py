"""Kun beside llama.cpp on the same GGUF files, in one run, as a Markdown table of ratios.

    python benches/compare_llama_cpp.py --kun target/release/kun MODEL.gguf ...
        [--rounds 5] [--threads 2] [--prompt 512] [--decode 128] [--batch 16] [--skip start,memory,batch]

Needs llama-cpp-python, best built for this machine: CMAKE_ARGS="-DGGML_NATIVE=ON" pip install llama-cpp-python.

The two engines take turns (Kun, llama.cpp, Kun, ..), each in a process of its own, and medians over the rounds are
compared, so that a noisy machine treats both alike. llama.cpp is driven through its C functions with whole batches;
what Python itself costs is outside every timed part. It gets the better of flash attention on and off, tried once for
each kind of work. Every measurement follows a warm-up of the same kind.

- prefill: tokens per second of one prompt; decode: of one sequence, from an empty context; batch: of many sequences
  decoded together, all of them counted.
- start: Kun from process start to the first text on its output; llama.cpp from the first call into the library (Python
  and the loading of the library not counted) to the first token.
- memory: most resident memory of the whole Kun process; for llama.cpp that of the process less what Python held
  before the model was loaded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

PROMPT = "Once upon a time, in a small village by the sea,"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--kun", default="target/release/kun")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--skip", default="", help="of prefill, decode, start, memory, batch")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of a table")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    skip = set(filter(None, args.skip.split(",")))
    everything = {}
    for model in args.models:
        everything[model] = compare(args, model, skip)
        print(f"{os.path.basename(model)}: done", file=sys.stderr)
    if args.json:
        print(json.dumps(everything, indent=1))
    else:
        table(everything)


def compare(args, model, skip):
    """Every figure of one model: {what: {"kun": [..], "llama.cpp": [..]}}."""
    figures = {}

    def add(what, kun, llama):
        pair = figures.setdefault(what, {"kun": [], "llama.cpp": []})
        pair["kun"].append(kun)
        pair["llama.cpp"].append(llama)

    flash = {
        what: max((0, 1), key=lambda on: llama_cpp_figure(args, model, what, on)["rate"])
        for what in kinds(args, skip)
    }
    for _ in range(args.rounds):
        for what in kinds(args, skip):
            add(what, kun_rate(args, model, what), llama_cpp_figure(args, model, what, flash[what])["rate"])
        if "start" not in skip:
            add("start", warm(model) or kun_start(args, model), warm(model) or llama_cpp_figure(args, model, "start", 1)["seconds"])
        if "memory" not in skip:
            memory = llama_cpp_figure(args, model, "memory", flash.get("prefill", 1))["bytes"]
            add("memory", kun_memory(args, model), memory)
    return figures


def kinds(args, skip):
    return [k for k in ("prefill", "decode", "batch") if k not in skip and (k != "batch" or args.batch > 1)]


def kun_rate(args, model, what):
    command = [args.kun, "bench", model, "-t", str(args.threads), "-r", "1", "--no-limits", "--json"]
    command += {
        "prefill": ["-p", str(args.prompt), "-n", "0"],
        "decode": ["-p", "0", "-n", str(args.decode)],
        "batch": ["-p", "0", "-n", str(args.decode), "--batch", str(args.batch)],
    }[what]
    rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    return rows["rows"][0]["tokens_per_s"]


def run_args(args, model):
    return [args.kun, "run", model, PROMPT, "--raw", "-n", "4", "-t", str(args.threads), "--context", "1024"]


def warm(model):
    """Reads the file, so that neither side pays for a disk that the other has just been spared."""
    with open(model, "rb", buffering=0) as file:
        while file.read(1 << 22):
            pass


def kun_start(args, model):
    started = time.perf_counter()
    process = subprocess.Popen(run_args(args, model), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    first = process.stdout.read(1)
    seconds = time.perf_counter() - started
    process.stdout.read()
    if process.wait() != 0 or not first:
        raise SystemExit(f"kun run failed on {model}")
    return seconds


def kun_memory(args, model):
    command = [args.kun, "bench", model, "-t", str(args.threads), "-r", "1", "--no-limits", "--json"]
    command += ["-p", str(args.prompt), "-n", "16"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"kun bench failed on {model}")
    return usage.ru_maxrss * 1024


def llama_cpp_figure(args, model, what, flash):
    command = [sys.executable, __file__, model, "--child", f"{what},{flash}"]
    for name in ("threads", "prompt", "decode", "batch"):
        command += [f"--{name}", str(getattr(args, name))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def child(args):
    """One measurement of llama.cpp in this process."""
    import ctypes

    import llama_cpp

    what, flash = args.child.split(",")
    log = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    before = resident("VmRSS")
    started = time.perf_counter()
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(args.models[0].encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"cannot load {args.models[0]}")
    sequences = args.batch if what == "batch" else 1
    params = llama_cpp.llama_context_default_params()
    depth = 1024 if what == "start" else max(args.prompt + 16, args.decode + 2)
    params.n_ctx = sequences * (-(-depth // 256) * 256)
    params.n_batch = params.n_ubatch = 512
    params.n_seq_max = sequences
    params.n_threads = params.n_threads_batch = args.threads
    if hasattr(params, "flash_attn_type"):
        params.flash_attn_type = int(flash)
    else:
        params.flash_attn = flash == "1"
    context = llama_cpp.llama_init_from_model(model, params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    width = llama_cpp.llama_vocab_n_tokens(vocab)
    batch = llama_cpp.llama_batch_init(512, 0, 1)

    def step(entries):
        """`entries`: (token, position, sequence, whether its logits are wanted)."""
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, logits) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, logits
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
        # Filling the batch is Python's time.
        at = time.perf_counter()
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(context)
        return time.perf_counter() - at

    def clear():
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)

    def prefill():
        clear()
        tokens = [(i * 7919 + 13) % width for i in range(args.prompt)]
        seconds = 0.0
        for first in range(0, args.prompt, 512):
            part = tokens[first : first + 512]
            last = first + len(part) == args.prompt
            seconds += step([(t, first + i, 0, last and i == len(part) - 1) for i, t in enumerate(part)])
        return args.prompt / seconds

    def decode():
        clear()
        step([((s * 7919 + 13) % width, 0, s, True) for s in range(sequences)])
        seconds = 0.0
        for i in range(args.decode):
            seconds += step([((i * 7919 + s) % width, i + 1, s, True) for s in range(sequences)])
        return sequences * args.decode / seconds

    if what == "start":
        data = PROMPT.encode()
        ids = (llama_cpp.llama_token * (len(data) + 16))()
        count = llama_cpp.llama_tokenize(vocab, data, len(data), ids, len(ids), True, False)
        step([(ids[i], i, 0, i == count - 1) for i in range(count)])
        sampler = llama_cpp.llama_sampler_init_greedy()
        llama_cpp.llama_sampler_sample(sampler, context, -1)
        result = {"seconds": time.perf_counter() - started}
    elif what == "memory":
        prefill()
        for i in range(16):
            step([(i, args.prompt + i, 0, True)])
        result = {"bytes": resident("VmHWM") - before}
    else:
        work = prefill if what == "prefill" else decode
        work()
        result = {"rate": work()}
    print(json.dumps(result))
    sys.stdout.flush()
    del log


def resident(field):
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


UNITS = {"prefill": "t/s", "decode": "t/s", "batch": "t/s", "start": "s", "memory": "MiB"}


def table(everything):
    """Ratios above 1 are in favour of Kun in every column."""
    kinds = [k for k in UNITS if any(k in figures for figures in everything.values())]
    print("| model | " + " | ".join(f"{k}, {UNITS[k]}: Kun / llama.cpp = ratio" for k in kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for model, figures in everything.items():
        cells = []
        for kind in kinds:
            pair = figures.get(kind)
            if not pair:
                cells.append("")
                continue
            kun, llama = statistics.median(pair["kun"]), statistics.median(pair["llama.cpp"])
            ratio = llama / kun if kind in ("start", "memory") else kun / llama
            scale = 2**20 if kind == "memory" else 1
            cells.append(f"{kun / scale:.4g} / {llama / scale:.4g} = **{ratio:.2f}**")
        print(f"| {os.path.basename(model)} | " + " | ".join(cells) + " |")


main()
