"""FP32-typed graph → FP16-typed graph, with or without Q/DQ, for TensorRT's strong typing.

TensorRT 11 gives every tensor the type that the graph says (10.12 does so on request), so FP16 must be written into the graph.
FP16 scales exist since opset 19. The image is normalised in FP32, where pixels and means are exact, and cast once.

A scale is the FP16 number nearest to the FP32 scale, and a weight is stored as its integer times that scale. Quantized, it is the
same integer as in the weakly typed graph, however the product was rounded. A scale that would be zero becomes the smallest FP16
number: such a channel is dead (ResNet-50 has 175 of 26,560), and its weights are below 127 times that number, 8e-6.
Does not know about ranges, placement or calibration tables.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.core.errors import CalibrationError, ExportError

__all__ = ["MIN_HALF", "STRONG_OPSET", "to_fp16_typed"]

#: The first opset whose QuantizeLinear takes FP16.
STRONG_OPSET = 19
#: FP16's smallest number above zero.
MIN_HALF = 2.0**-24
_LARGEST_HALF = float(np.finfo(np.float16).max)
_REMEDY = "edge-resnet build --fp32 has no such limit"

Floats: TypeAlias = npt.NDArray[np.float32]
Halves: TypeAlias = npt.NDArray[np.float16]


def to_fp16_typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph at opset 19 with FP16 from the first convolution, or its Q/DQ pair, to the logits; ``model`` is not changed.

    ``model``: FP32-typed, as exported or as quantize(…, "tensorrt") returns it. Input and output keep their names and types.
    Raises ExportError for a graph without a convolution, for one whose weights are stored as integers (the CPU's form), and for a
    weight or bias beyond ±65504; CalibrationError for a range beyond that.
    """
    strong = onnx.ModelProto()
    strong.CopyFrom(model)
    graph = strong.graph
    tensor = _first_half(graph)
    front = _makers_of(graph, tensor)
    _narrow_constants(graph, [node for node in graph.node if node.name not in front])
    _cast_input(graph, tensor, front)
    _cast_output(graph)
    del graph.value_info[:]
    del strong.opset_import[:]
    strong.opset_import.append(helper.make_opsetid("", STRONG_OPSET))
    strong.ir_version = helper.find_min_ir_version_for(strong.opset_import)
    onnx.checker.check_model(strong, full_check=True)
    return strong


def _first_half(graph: onnx.GraphProto) -> str:
    """The tensor to cast: the input of the first convolution, or of the Q/DQ pair in front of it."""
    makers = {output: node for node in graph.node for output in node.output}
    first = next((node for node in graph.node if node.op_type == "Conv"), None)
    if first is None:
        raise ExportError("the network has no convolution", hint="FP16 types can be written into the networks that build exports")
    tensor = first.input[0]
    while tensor in makers and makers[tensor].op_type in ("QuantizeLinear", "DequantizeLinear"):
        tensor = makers[tensor].input[0]
    return str(tensor)


def _makers_of(graph: onnx.GraphProto, tensor: str) -> set[str]:
    """Names of the nodes that compute a tensor."""
    makers = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    open_tensors = [tensor]
    while open_tensors:
        node = makers.get(open_tensors.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            open_tensors += node.input
    return found


def _narrow_constants(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace every float constant that the nodes read by its FP16 value."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scale_of = {node.input[0]: node.input[1] for node in pairs if node.input[0] in constants}
    scales = {node.input[1] for node in pairs}
    read = {name for node in nodes for name in node.input}
    for tensor in graph.initializer:
        name, value = tensor.name, constants[tensor.name]
        if name in scale_of and value.dtype != np.float32:
            raise ExportError(
                f"{name} is stored as integers: the graph has the form for the CPU", hint="quantize for TensorRT instead"
            )
        if name not in read or value.dtype != np.float32:
            continue
        if name in scales:
            half = _half_scales(value, name)
        elif name in scale_of:
            half = _on_grid(value, constants[scale_of[name]], name)
        else:
            half = _half(value, name)
        tensor.CopyFrom(numpy_helper.from_array(half, name))


def _half(value: npt.NDArray[np.floating], name: str) -> Halves:
    largest = float(np.abs(value).max(initial=0))
    if not largest <= _LARGEST_HALF:
        raise ExportError(f"{name} holds {largest:.6g}, the largest FP16 number is {_LARGEST_HALF:.0f}", hint=_REMEDY)
    return value.astype(np.float16)


def _half_scales(scales: Floats, name: str) -> Halves:
    """The nearest FP16 scales, none of them zero. Raises CalibrationError where 127 steps leave FP16."""
    largest = float(scales.max(initial=0)) * 127
    if not largest <= _LARGEST_HALF:
        raise CalibrationError(
            f"{name} stands for a range of {largest:.6g}, the largest FP16 number is {_LARGEST_HALF:.0f}", hint=_REMEDY
        )
    halves: Halves = np.maximum(scales.astype(np.float16), np.float16(MIN_HALF))
    return halves


def _on_grid(weight: Floats, scales: Floats, name: str) -> Halves:
    """Each weight's integer times its channel's FP16 scale. (O, ...) and (O,) → (O, ...)."""
    halves = _half_scales(scales, name).astype(np.float32)
    per_channel = (-1, *[1] * (weight.ndim - 1))
    integers = np.clip(np.rint(weight / scales.reshape(per_channel)), -128, 127)
    return _half(integers * halves.reshape(per_channel), name)


def _cast_input(graph: onnx.GraphProto, tensor: str, front: set[str]) -> None:
    readers = [node for node in graph.node if tensor in node.input and node.name not in front]
    cast = helper.make_node("Cast", [tensor], [f"{tensor}.fp16"], name=f"{tensor}.fp16", to=TensorProto.FLOAT16)
    graph.node.insert(min(list(graph.node).index(node) for node in readers), cast)
    for node in readers:
        node.input[:] = [cast.output[0] if name == tensor else name for name in node.input]


def _cast_output(graph: onnx.GraphProto) -> None:
    name = graph.output[0].name
    maker = next(node for node in graph.node if name in node.output)
    maker.output[list(maker.output).index(name)] = f"{name}.fp16"
    graph.node.append(helper.make_node("Cast", [f"{name}.fp16"], [name], name=f"{name}.fp32", to=TensorProto.FLOAT))
