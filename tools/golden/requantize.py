"""Requantised copies of a GGUF model, made with llama.cpp, for comparing perplexities and speeds type by type.

    requantize.py IN.gguf OUT_DIR [--mix] [--threads N] TYPE ...

Needs llama-cpp-python. TYPE is a name of `TYPES` below. The copies are named `<model>-<TYPE>.gguf` and are not kept in
the repository. Every linear weight gets the type itself (llama.cpp's `pure`), except where its rows do not fill
the type's blocks; `--mix` gives llama.cpp's usual mixture of types instead, as in the files that people download.
"""

import argparse
import os
import sys

import llama_cpp

# Values of `llama_ftype` in llama.h.
TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q2_K": 10,
    "Q3_K": 12,
    "Q4_K": 15,
    "Q4_K_M": 15,
    "Q5_K": 17,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "BF16": 32,
}


def requantize(source: str, target: str, type_name: str, pure: bool, threads: int) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = TYPES[type_name]
    params.nthread = threads
    params.allow_requantize = True
    params.pure = pure
    # A killed run must not leave half a file under the final name.
    partial = target + ".part"
    status = llama_cpp.llama_model_quantize(source.encode(), partial.encode(), params)
    if status != 0:
        sys.exit(f"{target}: llama_model_quantize returned {status}")
    os.replace(partial, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out_dir")
    parser.add_argument("types", nargs="+", choices=sorted(TYPES))
    parser.add_argument("--mix", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", help="model name in the file names; default: the source's, up to its first dot")
    args = parser.parse_args()
    os.makedirs(args.out_dir, exist_ok=True)
    name = args.name or os.path.basename(args.source).split(".")[0]
    for type_name in args.types:
        target = os.path.join(args.out_dir, f"{name}-{type_name}.gguf")
        if not os.path.exists(target):
            requantize(args.source, target, type_name, not args.mix, args.threads)
        print(target, os.path.getsize(target))


if __name__ == "__main__":
    main()
