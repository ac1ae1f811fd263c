"""int8 forms of ONNX files, as onnxruntime's static quantisation makes them, calibrated with random inputs.

    python benches/quantize_onnx.py OUT_FOLDER MODEL.onnx ... [--format qdq|qoperator] [--dynamic]

Needs numpy, onnx and onnxruntime. Activations are u8 with a zero point, weights i8 with a scale for each output.
"""

import argparse
import os

import numpy
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)


class Random(CalibrationDataReader):
    """Some inputs of the kind that `compare_onnx.py` uses."""

    def __init__(self, model, count=3):
        random = numpy.random.default_rng(1)
        ports = onnx.load(model, load_external_data=False).graph.input
        self.feeds = iter([{port.name: sample(random, port) for port in ports} for _ in range(count)])

    def get_next(self):
        return next(self.feeds, None)


def sample(random, port):
    kind = port.type.tensor_type
    shape = [dim.dim_value or 1 for dim in kind.shape.dim]
    if kind.elem_type == onnx.TensorProto.FLOAT:
        return random.random(shape, dtype="f") * 2 - 1
    return numpy.ones(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--format", choices=("qdq", "qoperator"), default="qdq")
    parser.add_argument("--dynamic", action="store_true", help="scales of activations as the model runs")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for model in args.models:
        name = os.path.splitext(os.path.basename(model))[0]
        out = os.path.join(args.out, f"{name}_int8{'_dynamic' if args.dynamic else ''}.onnx")
        if args.dynamic:
            quantize_dynamic(model, out, per_channel=True, weight_type=QuantType.QInt8)
        else:
            quantize_static(
                model,
                out,
                Random(model),
                quant_format=QuantFormat.QDQ if args.format == "qdq" else QuantFormat.QOperator,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        print(out)


if __name__ == "__main__":
    main()
