"""The version of the Q/DQ form is raised when quantize() writes another graph: cached engines would be used in its place."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.qdq import QdqForm, measured_tensors, quantize
from edge_resnet.core.records import QuantRecipe
from edge_resnet.runtime.onnxruntime import QDQ_FOR_CPU

#: The version with which each graph below was last written.
VERSION = 3
DIGESTS: dict[QdqForm, str] = {"u8s8": "e49c78d3aa39f6dc", "u8s7": "73b5ef19efe44ad5", "tensorrt": "83780e80775a4d0f"}


def handmade() -> onnx.ModelProto:
    """Every kind of node that is placed: normalisation, a max pool, a residual block, and a classifier."""
    shapes = {"mean": (1, 3, 1, 1), "scale": (1, 3, 1, 1), "conv1.w": (4, 3, 3, 3), "conv2.w": (4, 4, 3, 3), "fc.w": (2, 4)}
    constants = {name: np.linspace(-1, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}
    constants |= {"conv1.b": np.float32([0.5, -0.5, 0.25, 0]), "fc.b": np.float32([1, -1])}
    kernel = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["images"], ["cast"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["transpose"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["transpose", "mean"], ["sub"], name="sub"),
        helper.make_node("Mul", ["sub", "scale"], ["mul"], name="mul"),
        helper.make_node("Conv", ["mul", "conv1.w", "conv1.b"], ["conv1"], name="conv1", **kernel),
        helper.make_node("Relu", ["conv1"], ["relu1"], name="relu1"),
        helper.make_node("MaxPool", ["relu1"], ["pool"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pool", "conv2.w"], ["conv2"], name="conv2", **kernel),
        helper.make_node("Add", ["conv2", "pool"], ["add"], name="add"),
        helper.make_node("Relu", ["add"], ["relu2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["relu2"], ["mean2"], name="mean2"),
        helper.make_node("Flatten", ["mean2"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["logits"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "handmade",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def digest(model: onnx.ModelProto) -> str:
    """Nodes with their edges and attributes, and constants, whose floats are rounded to five digits."""
    lines = [
        f"{node.op_type} {list(node.input)} {list(node.output)} {sorted(map(str, node.attribute))}" for node in model.graph.node
    ]
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        value = numpy_helper.to_array(tensor)
        lines.append(f"{tensor.name} {value.dtype} {value.shape} {[f'{float(number):.5g}' for number in value.reshape(-1)]}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("form", ["u8s8", "u8s7", "tensorrt"])
def test_another_graph_needs_another_version(form: QdqForm) -> None:
    """If this fails, raise QDQ_FOR_CPU's version, and write the new version and digests here."""
    model = handmade()
    table = CalibrationTable(dict.fromkeys(measured_tensors(model), 3.0), ("mul",), QuantRecipe("max"), 1, "", "")
    assert QDQ_FOR_CPU.version == VERSION
    assert digest(quantize(model, table, form)) == DIGESTS[form]
