"""Perplexity of requantised copies of a model, type by type, as Kun and as llama.cpp compute it: a Markdown table.

    python benches/compare_perplexity.py --kun target/release/kun --file TEXT MODEL.gguf --copies DIR
        [--types Q4_0,Q4_K,..] [--context 512] [--windows 24] [--threads 2] [--plain]
        [--mix]

Needs llama-cpp-python, gguf and numpy. The model is first written in F32, widened by zeros so that its rows fill the
blocks of every type (`tools/golden/widen.py`); llama.cpp then quantises every matrix of that to the type itself
(`tools/golden/requantize.py`). Copies that are there already are used again; a copy is removed after its comparison
unless --keep is given. Ends with 1 if a perplexity differs by more than one percent.

A llama-cpp-python built with BLAS (CMAKE_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS") and --plain multiply the
quantised weights with activations in f32: the value that an implementation without rounding of its own has.
"""

import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tools", "golden")
TYPES = "F32,F16,BF16,Q4_0,Q4_1,Q5_0,Q5_1,Q8_0,Q2_K,Q3_K,Q4_K,Q5_K,Q6_K,IQ4_NL,IQ4_XS"


def perplexity(command, args):
    command = command + ["--file", args.file, "--context", str(args.context), "--windows", str(args.windows)]
    command += ["--threads", str(args.threads), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)["perplexity"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--kun", default="target/release/kun")
    parser.add_argument("--file", required=True)
    parser.add_argument("--copies", required=True, help="folder for the copies; 1 GB is needed")
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--mix", action="store_true", help="copies in llama.cpp's usual mixtures, as people download them")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    os.makedirs(args.copies, exist_ok=True)
    wide = os.path.basename(args.model).split(".")[0] + "-wide"
    name = wide + "-mix" if args.mix else wide
    source = os.path.join(args.copies, f"{wide}-F32.gguf")
    if not os.path.exists(source):
        partial = source + ".part"
        subprocess.run([sys.executable, os.path.join(GOLDEN, "widen.py"), args.model, partial], check=True)
        os.replace(partial, source)
    worst = 0.0
    print("| type | Kun | llama.cpp | difference |\n|---|---|---|---|", flush=True)
    for kind in args.types.split(","):
        copy = os.path.join(args.copies, f"{name}-{kind}.gguf")
        if not os.path.exists(copy):
            command = [os.path.join(GOLDEN, "requantize.py"), source, args.copies, kind, "--name", name]
            command += ["--threads", str(args.threads), *(["--mix"] if args.mix else [])]
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ours = perplexity([args.kun, "eval", "perplexity", copy], args)
        plain = ["--plain"] if args.plain else []
        theirs = perplexity([sys.executable, os.path.join(HERE, "perplexity_llama_cpp.py"), copy, *plain], args)
        difference = (ours / theirs - 1) * 100
        worst = max(worst, abs(difference))
        print(f"| {kind} | {ours:.4f} | {theirs:.4f} | {difference:+.3f} % |", flush=True)
        if copy != source and not args.keep:
            os.remove(copy)
    if worst > 1:
        sys.exit(f"a perplexity differs by {worst:.3f} %, limit 1 %")


if __name__ == "__main__":
    main()
