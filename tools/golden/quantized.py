"""A small quantised network and what onnxruntime makes of it.

    python tools/golden/quantized.py testdata/quantized

Needs numpy, onnx and onnxruntime. `network.onnx` has what onnxruntime's static quantisation makes of a small image network
(u8 activations, i8 weights with a scale for each output): a first convolution, a pool, a block with a sum, a depthwise one
with bounds, SiLU, a mean and a product. `operators.onnx` is the same with QLinear operators.
"""

import os
import sys
import tempfile

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static


def network(path):
    random = numpy.random.default_rng(0)
    nodes, weights = [], []

    def constant(array):
        weights.append(numpy_helper.from_array(numpy.asarray(array, "f"), f"w{len(weights)}"))
        return weights[-1].name

    def op(kind, *inputs, **attributes):
        nodes.append(helper.make_node(kind, list(inputs), [f"{kind}{len(nodes)}".lower()], **attributes))
        return nodes[-1].output[0]

    def conv(x, outputs, channels, kernel, stride=1, group=1):
        shape = (outputs, channels // group, kernel, kernel)
        scale = (2 / (shape[1] * kernel * kernel)) ** 0.5
        w, b = constant(random.standard_normal(shape) * scale), constant(random.standard_normal(outputs) * 0.1)
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return op("Conv", x, w, b, group=group, **sizes)

    x = op("Relu", conv("x", 16, 3, 3, 2))
    x = op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = op("Relu", conv(x, 12, 16, 1))
    x = op("Relu", op("Add", conv(y, 16, 12, 3), x))
    x = op("Clip", conv(x, 16, 16, 3, 1, 16), constant(0.0), constant(6.0))
    x = conv(x, 20, 16, 1)
    x = op("Mul", x, op("Sigmoid", x))
    x = op("Flatten", op("GlobalAveragePool", x), axis=1)
    x = op("Gemm", x, constant(random.standard_normal((20, 10)) * 0.3), constant(random.standard_normal(10) * 0.1))
    shape = [1, 3, 24, 24]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return shape


class Random(CalibrationDataReader):
    def __init__(self, shape):
        random = numpy.random.default_rng(1)
        self.feeds = iter([{"x": random.random(shape, dtype="f") * 2 - 1} for _ in range(4)])

    def get_next(self):
        return next(self.feeds, None)


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    plain = os.path.join(tempfile.mkdtemp(), "plain.onnx")
    shape = network(plain)
    x = numpy.random.default_rng(2).random(shape, dtype="f") * 2 - 1
    # Whole steps of 1 / 64: the file is small and the numbers are exact.
    x = numpy.round(x * 64) / 64
    numpy.save(os.path.join(out, "x.npy"), x.astype("f"))
    for name, form in [("network", QuantFormat.QDQ), ("operators", QuantFormat.QOperator)]:
        path = os.path.join(out, f"{name}.onnx")
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(plain, path, Random(shape), quant_format=form, per_channel=True, **kinds)
        # Without fusion the answer is what the operators of the standard say.
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        numpy.save(os.path.join(out, f"{name}.npy"), session.run(None, {"x": x.astype("f")})[0])


if __name__ == "__main__":
    main()
