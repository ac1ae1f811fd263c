"""Makes testdata/quant from gguf-py and llama.cpp (pip install gguf llama-cpp-python numpy).

<type>.bin: blocks, then what `gguf.quants.dequantize` makes of them (f32).
gaussian.bin: f32 values, 8 rows of 1024.
<type>.encode.bin: the blocks that `gguf.quants.quantize` makes of its first row, where it can.
rmse.txt: per type, the root-mean-square error of llama.cpp's own quantiser on all of it.

Usage: python tools/golden/quant_blocks.py
"""

import ctypes
import pathlib

import gguf
import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parent.parent / "testdata" / "quant"

# name: (GGUF type, bytes at which a block has f16 factors)
TYPES = {
    "q4_0": ("Q4_0", [0]),
    "q4_1": ("Q4_1", [0, 2]),
    "q5_0": ("Q5_0", [0]),
    "q5_1": ("Q5_1", [0, 2]),
    "q8_0": ("Q8_0", [0]),
    "q2_k": ("Q2_K", [80, 82]),
    "q3_k": ("Q3_K", [108]),
    "q4_k": ("Q4_K", [0, 2]),
    "q5_k": ("Q5_K", [0, 2]),
    "q6_k": ("Q6_K", [208]),
    "iq4_nl": ("IQ4_NL", [0]),
    "iq4_xs": ("IQ4_XS", [0]),
    "bf16": ("BF16", []),
}
ELEMENTS = 1024


def llama_quantise(qtype, values):
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(folder / "libggml-base.so"))
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
    out = np.zeros(values.size // block_len * block_bytes, np.uint8)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = (
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    )
    library.ggml_quantize_chunk(
        int(qtype), values.ctypes.data, out.ctypes.data, 0, values.shape[0], values.shape[1], None
    )
    return out


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    gaussian = rng.standard_normal((8, ELEMENTS), np.float32)
    (OUT / "gaussian.bin").write_bytes(gaussian.tobytes())
    errors = []
    for name, (label, halves) in TYPES.items():
        qtype = gguf.GGMLQuantizationType[label]
        block_len, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
        blocks = rng.integers(0, 256, (ELEMENTS // block_len, block_bytes), np.uint8)
        # The last block keeps random factors: huge, tiny or not a number.
        for at in halves:
            factors = rng.standard_normal(len(blocks) - 1).astype(np.float16)
            blocks[:-1, at : at + 2] = factors.view(np.uint8).reshape(-1, 2)
        values = gguf.quants.dequantize(blocks.reshape(1, -1), qtype).astype(np.float32)
        (OUT / f"{name}.bin").write_bytes(blocks.tobytes() + values.tobytes())
        try:
            encoded = gguf.quants.quantize(gaussian[:1], qtype)
            (OUT / f"{name}.encode.bin").write_bytes(encoded.tobytes())
        except NotImplementedError:
            pass
        if name != "bf16":
            encoded = llama_quantise(qtype, gaussian)
            decoded = gguf.quants.dequantize(encoded.reshape(1, -1), qtype).reshape(gaussian.shape)
            error = np.sqrt(np.mean((decoded - gaussian).astype(np.float64) ** 2))
            errors.append(f"{name} {error:.6g}")
    (OUT / "rmse.txt").write_text("\n".join(errors) + "\n")


if __name__ == "__main__":
    main()
