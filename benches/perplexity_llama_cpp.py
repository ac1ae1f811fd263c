"""Perplexity of a GGUF model as llama.cpp computes it, for comparing with `kun eval perplexity`.

    python benches/perplexity_llama_cpp.py MODEL.gguf --file TEXT --context 512 [--threads 2] [--windows N] [--json]

Needs llama-cpp-python and numpy. The procedure is that of `llama-perplexity`: windows of `context` tokens, the first
replaced by the beginning token if the model adds one, the tokens after the first half scored.
"""

import argparse
import ctypes
import json
import math
import time

import llama_cpp
import numpy as np


def quiet():
    """Keeps llama.cpp's own log off the terminal; the callback must stay referenced."""
    callback = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    return callback


def tokenize(vocab, text):
    data = text.encode()
    room = len(data) + 16
    ids = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), ids, room, True, False)
    if count < 0:
        raise SystemExit("the text cannot be tokenized")
    return list(ids[:count])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--file", required=True)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=0, help="stop after so many windows; 0: all")
    parser.add_argument("--plain", action="store_true", help="weights as in the file, so that a build with BLAS computes in f32")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    log = quiet()
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    # Weights laid out anew for quantised products are out of reach for a BLAS, which a build may have.
    model_params.use_extra_bufts = not args.plain
    model = llama_cpp.llama_model_load_from_file(args.model.encode(), model_params)
    if not model:
        raise SystemExit(f"cannot load {args.model}")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = args.context
    params.n_threads = params.n_threads_batch = args.threads
    context = llama_cpp.llama_init_from_model(model, params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    width = llama_cpp.llama_vocab_n_tokens(vocab)

    with open(args.file, encoding="utf-8", newline="") as file:
        text = file.read()
    tokens = tokenize(vocab, text[:-1] if text.endswith("\n") else text)
    n = args.context
    windows = len(tokens) // n
    if windows < 2:
        raise SystemExit(f"the text has {len(tokens)} tokens, two windows of {n} are needed")
    windows = min(windows, args.windows or windows)
    first = n // 2
    batch = llama_cpp.llama_batch_init(n, 0, 1)
    total = squares = 0.0
    count = 0
    started = time.perf_counter()
    for window in range(windows):
        ids = tokens[window * n : (window + 1) * n]
        if llama_cpp.llama_vocab_get_add_bos(vocab):
            ids[0] = llama_cpp.llama_vocab_bos(vocab)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = n
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = token, i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = first <= i < n - 1
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        for i in range(first, n - 1):
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), shape=(width,))
            top = float(logits.max())
            log_sum = top + math.log(float(np.exp(logits - top).sum(dtype=np.float64)))
            nll = log_sum - float(logits[ids[i + 1]])
            total += nll
            squares += nll * nll
            count += 1
    seconds = time.perf_counter() - started
    mean = total / count
    error = math.sqrt(max(squares / count - mean * mean, 0.0) / (count - 1))
    result = {
        "perplexity": math.exp(mean),
        "perplexity_error": error * math.exp(mean),
        "nll": mean,
        "scored_tokens": count,
        "text_tokens": len(tokens),
        "windows": windows,
        "context_tokens": n,
        "seconds": seconds,
    }
    print(json.dumps(result) if args.json else f"{result['perplexity']:.4f} +/- {result['perplexity_error']:.4f}")
    del log


main()
