"""Kun beside onnxruntime and openvino on the same ONNX files, in one run, as a Markdown table of ratios.

    cargo build --release -p kun-engine --example onnx_bench
    python benches/compare_onnx.py MODEL.onnx ... [--threads 1,2] [--batch 1,8] [--rounds 7] [--ms 400] [--json]

Needs numpy, onnxruntime and openvino. The engines take turns (Kun, onnxruntime, openvino, Kun, ..), each in a process
of its own that stays loaded, and medians over all runs of all rounds are compared, so that a noisy machine treats all
alike. A ratio is the better peer's time by Kun's: above 1, Kun is faster. A batch changes the first dimension of inputs
whose first dimension is symbolic; models of a fixed batch run with that one alone.

With --f32 FOLDER, the peers also run what a model NAME_int8.onnx was made of, FOLDER/NAME.onnx, and another column says how
Kun's time compares with the better of these; `quantize_onnx.py` makes int8 models.

With --precision bf16, Kun and openvino multiply in bf16; onnxruntime has no such mode and stays in f32.

With --cpu the milliseconds are those of the processor, which a busy machine hardly changes; only for one thread, as
threads that wait for each other take the processor too.

- run: milliseconds of one inference; first: from opening the file to the end of the first inference (imports not
  counted), the median of --starts processes of each engine, in turns: memory that nobody used for a while is slow for
  whoever touches it first; memory: most resident memory of the process, for the peers less what Python held before the
  model was loaded.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

PEERS = ("onnxruntime", "openvino")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--kun", default="target/release/examples/onnx_bench")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ms", type=float, default=400, help="about how long an engine's turn takes")
    parser.add_argument("--starts", type=int, default=3, help="processes whose first inference is measured")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="bf16: of Kun and openvino")
    parser.add_argument("--f32", metavar="FOLDER", help="of what int8 models were made of")
    parser.add_argument("--cpu", action="store_true", help="time of the processor, with one thread")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    if args.cpu and args.threads != "1":
        parser.error("--cpu wants --threads 1")
    rows = []
    for model in args.models:
        for batch, files in inputs_of(model, [int(n) for n in args.batch.split(",")]):
            for threads in args.threads.split(","):
                rows.append({"model": os.path.basename(model), "batch": batch, "threads": int(threads)})
                rows[-1].update(compare(args, model, threads, files))
                print(line(rows[-1]), file=sys.stderr)
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    more = " ratio to f32 |" if args.f32 else ""
    print(f"| model | batch | threads | Kun ms | onnxruntime ms | openvino ms | ratio |{more} first, ms | memory, MiB |")
    print("|---|---|---|---|---|---|---|---|---|" + "---|" * bool(more))
    for row in rows:
        print(line(row))


def line(row):
    engines = [name for name, found in row.items() if isinstance(found, dict)]
    run = {engine: statistics.median(row[engine]["runs"]) for engine in engines}
    plain = [run[engine] for engine in run if engine.endswith("f32")]
    more = f"| **{min(plain) / run['kun']:.2f}** " if plain else ""
    ratio = min(run[peer] for peer in PEERS) / run["kun"]
    of = lambda what, form: " / ".join(form.format(row[engine][what]) for engine in ("kun", *PEERS))
    return (
        f"| {row['model']} | {row['batch']} | {row['threads']} | {run['kun']:.2f} | {run['onnxruntime']:.2f} "
        f"| {run['openvino']:.2f} | **{ratio:.2f}** {more}| {of('first', '{:.0f}')} | {of('memory', '{:.0f}')} |"
    )


def inputs_of(model, batches):
    """Files of random inputs for each batch that the model takes."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    ports = session.get_inputs()
    if all(isinstance(port.shape[0], int) for port in ports):
        batches = [ports[0].shape[0]]
    folder = tempfile.mkdtemp()
    random = numpy.random.default_rng(0)
    for batch in batches:
        files = []
        for port in ports:
            default = {0: batch, 1: 3}
            shape = [n if isinstance(n, int) else default.get(i, 224) for i, n in enumerate(port.shape)]
            kind = port.type[len("tensor(") : -1]
            array = random.random(shape, dtype="f") * 2 - 1 if kind == "float" else numpy.ones(shape, kind)
            files.append(os.path.join(folder, f"{batch}-{len(files)}.npy"))
            numpy.save(files[-1], array)
        yield batch, files


def compare(args, model, threads, files):
    """{engine: {"first": ms, "runs": [ms, ..], "memory": MiB}}"""
    precision = "bf16" if args.precision == "bf16" else ""
    commands = {"kun": [args.kun, model, threads + precision, *files]}
    for peer in PEERS:
        options = ["--child", peer, "--threads", threads, "--precision", args.precision]
        commands[peer] = [sys.executable, __file__, *options, model, *files]
        plain = os.path.join(args.f32 or "", os.path.basename(model).replace("_int8.onnx", ".onnx"))
        if args.f32 and model.endswith("_int8.onnx") and os.path.exists(plain):
            commands[f"{peer} f32"] = [sys.executable, __file__, *options, plain, *files]
    found = {engine: {"runs": [], "starts": []} for engine in commands}
    running = {}
    for _ in range(args.starts - 1):
        for engine, command in commands.items():
            lines = subprocess.run(command, input="", stdout=subprocess.PIPE, text=True, check=True).stdout
            found[engine]["starts"].append(float(lines.split()[0]))
    for engine, command in commands.items():
        pipe = subprocess.PIPE
        running[engine] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        found[engine]["starts"].append(float(running[engine].stdout.readline()))
        found[engine]["first"] = statistics.median(found[engine]["starts"])
        ask(running[engine], 1)
    counts = {engine: max(1, int(args.ms / max(ask(process, 1)))) for engine, process in running.items()}
    for _ in range(args.rounds):
        for engine, process in running.items():
            before = processor_ms(process)
            runs = ask(process, counts[engine])
            found[engine]["runs"] += [(processor_ms(process) - before) / len(runs)] if args.cpu else runs
    for engine, process in running.items():
        process.stdin.close()
        found[engine]["memory"] = float(process.stdout.readline()) / 1024
        process.wait()
    return found


def processor_ms(process):
    """What all threads of a process have taken of the processor."""
    files = glob.glob(f"/proc/{process.pid}/task/*/schedstat")
    return sum(int(open(file).read().split()[0]) for file in files) / 1e6


def ask(process, count):
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def memory_kib(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def child(args):
    """One peer, spoken to as Kun's own example is."""
    import numpy

    model, *files = args.models
    arrays = [numpy.load(file) for file in files]
    threads = int(args.threads)
    if args.child == "onnxruntime":
        import onnxruntime

        before = memory_kib("VmRSS")
        started = time.perf_counter()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feed = {port.name: array for port, array in zip(session.get_inputs(), arrays)}
        run = lambda: session.run(None, feed)
    else:
        import openvino

        before = memory_kib("VmRSS")
        started = time.perf_counter()
        core = openvino.Core()
        graph = core.read_model(model)
        graph.reshape({port: list(array.shape) for port, array in zip(graph.inputs, arrays)})
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": args.precision}
        request = core.compile_model(graph, "CPU", settings).create_infer_request()
        run = lambda: request.infer(arrays)
    run()
    print((time.perf_counter() - started) * 1e3, flush=True)
    for text in sys.stdin:
        times = []
        for _ in range(int(text)):
            started = time.perf_counter()
            run()
            times.append((time.perf_counter() - started) * 1e3)
        print(json.dumps(times), flush=True)
    print(memory_kib("VmHWM") - before)


if __name__ == "__main__":
    main()
