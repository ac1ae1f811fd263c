"""A Llama-style GGUF model in F32, made wider by zeros until its rows fill the blocks of every quantised type.

    widen.py IN.gguf OUT.gguf [--multiple 256]

Needs gguf and numpy. SmolLM2-135M has rows of 576, which no K-quant can hold; here it becomes a model of width 768 and
twelve heads that computes exactly the same: new columns and heads are zero, and because a root mean square over more
elements is smaller, norm weights shrink by sqrt(576 / 768) and epsilon by 576 / 768. The copy is not kept in the
repository.
"""

import argparse

import gguf
import numpy as np


def pad(a, rows, columns):
    return np.pad(a, ((0, rows - a.shape[0]), (0, columns - a.shape[1])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--multiple", type=int, default=256)
    args = parser.parse_args()
    reader = gguf.GGUFReader(args.source)
    arch = reader.fields["general.architecture"].contents()
    value = {name: field.contents() for name, field in reader.fields.items()}
    width, heads, kv_heads = (
        value[f"{arch}.{key}"] for key in ("embedding_length", "attention.head_count", "attention.head_count_kv")
    )
    head = value.get(f"{arch}.attention.key_length", width // heads)
    wide = -(-width // args.multiple) * args.multiple
    if value[f"{arch}.feed_forward_length"] % args.multiple:
        raise SystemExit("the feed-forward width does not fill the blocks")
    # Whole groups of heads that share keys, until their width fills the blocks too.
    wide_kv = kv_heads
    while wide_kv * (heads // kv_heads) * head % args.multiple:
        wide_kv += 1
    wide_heads = wide_kv * (heads // kv_heads)
    shrink = width / wide

    writer = gguf.GGUFWriter(args.target, arch)
    changed = {
        f"{arch}.embedding_length": wide,
        f"{arch}.attention.head_count": wide_heads,
        f"{arch}.attention.head_count_kv": wide_kv,
        f"{arch}.attention.layer_norm_rms_epsilon": value[f"{arch}.attention.layer_norm_rms_epsilon"] * shrink,
        "general.file_type": 0,
    }
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        types = field.types
        sub = types[1] if types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, changed.get(name, value[name]), types[0], sub)
    for key in ("attention.key_length", "attention.value_length"):
        if f"{arch}.{key}" not in value:
            writer.add_uint32(f"{arch}.{key}", head)
    shapes = {
        "token_embd": lambda a: pad(a, a.shape[0], wide),
        "output": lambda a: pad(a, a.shape[0], wide),
        "attn_q": lambda a: pad(a, wide_heads * head, wide),
        "attn_k": lambda a: pad(a, wide_kv * head, wide),
        "attn_v": lambda a: pad(a, wide_kv * head, wide),
        "attn_output": lambda a: pad(a, wide, wide_heads * head),
        "ffn_gate": lambda a: pad(a, a.shape[0], wide),
        "ffn_up": lambda a: pad(a, a.shape[0], wide),
        "ffn_down": lambda a: pad(a, wide, a.shape[1]),
    }
    for tensor in reader.tensors:
        a = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = tensor.name.removesuffix(".weight").split(".")[-1]
        if kind.endswith("_norm"):
            a = np.pad(a * np.float32(shrink**0.5), (0, wide - width))
        else:
            a = shapes[kind](a)
        writer.add_tensor(tensor.name, np.ascontiguousarray(a))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
