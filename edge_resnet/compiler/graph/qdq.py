"""FP32 graph + calibration table → INT8 graph with Q/DQ pairs. Does not know about images, folders or devices.

There are two forms of one placement. ``tensorrt``: symmetric int8, per-channel weights in float in front of their own pair, bias
in float; TensorRT 8.6 to 11 reads it, and ``--simulate-int8`` runs it. ``u8s8``: unsigned activations, stored int8 weights, int32
bias, which is fast on a CPU. ``u8s7`` is u8s8 with seven-bit weights, for x86 without VNNI, whose 16-bit accumulator would
saturate. Whoever changes the graph that is written raises the ``version`` of the form in runtime/onnxruntime.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import Corrections, apply
from edge_resnet.compiler.graph.placement import Pair, quantized_weights, tensorrt_pairs, with_cpu_pairs
from edge_resnet.compiler.graph.scales import MIN_SCALE, channel_amax, weight_scales
from edge_resnet.core.errors import CalibrationError

__all__ = ["QdqForm", "measured_tensors", "quantize"]

QdqForm: TypeAlias = Literal["tensorrt", "u8s8", "u8s7"]
Array: TypeAlias = npt.NDArray[np.generic]
Floats: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Grid:
    """The quantization of one activation: real = (integer - zero) * scale."""

    scale: float
    zero: Array


def measured_tensors(model: onnx.ModelProto) -> list[str]:
    """The tensors whose ranges a calibration table must hold for every form, in graph order. ``model``: with corrections."""
    pairs = with_cpu_pairs(model, tensorrt_pairs(model))
    return list(dict.fromkeys(pair.range_of for pair in pairs))


def quantize(
    model: onnx.ModelProto, table: CalibrationTable, form: QdqForm, corrections: Corrections | None = None
) -> onnx.ModelProto:
    """Apply the corrections and insert the Q/DQ pairs of ``form``; ``model`` itself is not changed.

    Raises CalibrationError if the table lacks a tensor, or if table or corrections name a node that the network does not have.
    """
    quantized = onnx.ModelProto()
    model = apply(model, corrections)
    quantized.CopyFrom(model)
    scales = {} if corrections is None else corrections.scales
    keep = frozenset(table.recipe.keep_high_precision)
    pairs = tensorrt_pairs(model, keep)
    if form != "tensorrt":
        pairs = with_cpu_pairs(model, pairs, keep)
        _widen_normalisation(quantized)
    editor = _Editor(quantized)
    grids: dict[tuple[str, int], _Grid] = {}
    for pair in pairs:
        grid = _grid(pair, table, form)
        editor.quantize_activation(pair, grid)
        grids.update(dict.fromkeys(pair.readers, grid))
    for name in quantized_weights(model, keep, classifier=form != "tensorrt"):
        if form == "tensorrt":
            editor.quantize_weight_in_graph(name, scales.get(name))
        elif form == "u8s7":
            editor.store_quantized(name, grids[name, 0], None, limit=63)
        else:
            editor.store_quantized(name, grids[name, 0], scales.get(name))
    editor.finish()
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _grid(pair: Pair, table: CalibrationTable, form: QdqForm) -> _Grid:
    if pair.range_of not in table.amax:
        raise CalibrationError(f"the calibration table has no range for {pair.range_of}", hint="build the artifact again")
    unsigned = form != "tensorrt" and pair.range_of not in table.signed
    scale = max(table.amax[pair.range_of] / (255 if unsigned else 127), MIN_SCALE)
    if form == "tensorrt":
        return _Grid(scale, np.array(0, np.int8))
    return _Grid(scale, np.array(0 if unsigned else 128, np.uint8))


def _widen_normalisation(model: onnx.ModelProto) -> None:
    """Repeat mean and scale (1, 3, 1, 1) over the image's width: (1, 3, 1, W), the same function to the bit.

    ONNX Runtime moves the Transpose behind them, where it broadcasts (1, 1, 1, 3) three values at a time, which takes a sixth of
    ResNet-18's time. It broadcasts (1, 1, W, 3) a whole row at a time.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    widths = {value.name: value.type.tensor_type.shape.dim[-1].dim_value for value in inferred.value_info}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            return
        if node.op_type in ("Sub", "Mul") and widths.get(node.output[0]):
            tensor = constants[node.input[1]]
            wide = np.repeat(numpy_helper.to_array(tensor), widths[node.output[0]], axis=3)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


class _Editor:
    """Edits one graph in place; ``finish`` puts new nodes right before their first reader."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._nodes = {node.name: node for node in self._graph.node}
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._order = [node.name for node in self._graph.node]

    def quantize_activation(self, pair: Pair, grid: _Grid) -> None:
        """Insert one pair on a tensor, and connect the pair's readers to it."""
        stem = f"{pair.tensor}.act"
        scale = self._constant(f"{stem}.scale", np.array(grid.scale, np.float32))
        zero = self._constant(f"{stem}.zero", grid.zero)
        first = min(pair.readers, key=lambda reader: self._order.index(reader[0]))[0]
        self._before.setdefault(first, []).extend(
            [
                helper.make_node("QuantizeLinear", [pair.tensor, scale, zero], [f"{stem}.q"], name=f"{stem}.q"),
                helper.make_node("DequantizeLinear", [f"{stem}.q", scale, zero], [f"{stem}.dq"], name=f"{stem}.dq"),
            ]
        )
        for name, index in pair.readers:
            self._nodes[name].input[index] = f"{stem}.dq"

    def quantize_weight_in_graph(self, name: str, learned: Floats | None) -> None:
        """Float weight → Q → DQ → node, per output channel, as TensorRT 8.x needs it; ``learned``: scales to use, if any."""
        node = self._nodes[name]
        weight = node.input[1]
        scales = weight_scales(self._array(weight)) if learned is None else learned
        stem = f"{name}.weight"
        scale = self._constant(f"{stem}.scale", scales)
        zero = self._constant(f"{stem}.zero", np.zeros(len(scales), np.int8))
        self._before.setdefault(name, []).extend(
            [
                helper.make_node("QuantizeLinear", [weight, scale, zero], [f"{stem}.q"], name=f"{stem}.q", axis=0),
                helper.make_node("DequantizeLinear", [f"{stem}.q", scale, zero], [f"{stem}.dq"], name=f"{stem}.dq", axis=0),
            ]
        )
        node.input[1] = f"{stem}.dq"

    def store_quantized(self, name: str, grid: _Grid, learned: Floats | None, limit: int = 127) -> None:
        """Replace a node's float weight and bias by stored int8 and int32 values with a DQ each."""
        node = self._nodes[name]
        weight = self._array(node.input[1])
        bias = self._array(node.input[2]) if len(node.input) > 2 else np.zeros(weight.shape[0], np.float32)
        # The bias's scale is the input's times the weight's. In a channel of tiny or zero weights it follows the bias instead, so
        # that the bias keeps its digits and fits int32 together with the sum, and its scale fits float32.
        floor = np.maximum(np.abs(bias.astype(np.float64)) / 2**30, MIN_SCALE) / grid.scale
        own = weight_scales(weight, limit) if learned is None else learned
        alive = channel_amax(weight) / limit >= MIN_SCALE
        scales = np.maximum(np.where(alive, own, 0), floor).astype(np.float32)
        integers = np.clip(np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))), -limit, limit).astype(np.int8)
        self._dequantized(node, 1, f"{name}.weight", integers, scales)
        bias_scales = (scales.astype(np.float64) * grid.scale).astype(np.float32)
        self._dequantized(node, 2, f"{name}.bias", np.rint(bias / bias_scales).astype(np.int32), bias_scales)

    def finish(self) -> None:
        """Write the nodes back in order, and drop the constants that no node reads any more."""
        nodes = [new for name in self._order for new in (*self._before.get(name, []), self._nodes[name])]
        used = {tensor for node in nodes for tensor in node.input}
        constants = [tensor for tensor in self._weights.values() if tensor.name in used]
        graph = onnx.GraphProto(name=self._graph.name, node=nodes, initializer=constants)
        graph.input.extend(self._graph.input)
        graph.output.extend(self._graph.output)
        self._graph.CopyFrom(graph)

    def _dequantized(self, node: onnx.NodeProto, index: int, stem: str, integers: Array, scales: Floats) -> None:
        inputs = [
            self._constant(f"{stem}.q", integers),
            self._constant(f"{stem}.scale", scales),
            self._constant(f"{stem}.zero", np.zeros(len(scales), integers.dtype)),
        ]
        dequantize = helper.make_node("DequantizeLinear", inputs, [f"{stem}.dq"], name=f"{stem}.dq", axis=0)
        self._before.setdefault(node.name, []).append(dequantize)
        if index < len(node.input):
            node.input[index] = f"{stem}.dq"
        else:
            node.input.append(f"{stem}.dq")

    def _array(self, name: str) -> Floats:
        return np.asarray(numpy_helper.to_array(self._weights[name]), np.float32)

    def _constant(self, name: str, value: Array) -> str:
        self._weights[name] = numpy_helper.from_array(np.asarray(value), name)
        return name
