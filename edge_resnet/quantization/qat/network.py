"""An artifact's graph as a trainable torch network that rounds where its INT8 engine rounds.

The graph is the deployed one with batch norm folded, run node by node by quantization/executor.py; compiler/graph/placement.py
alone decides what is rounded. Every parameter is a deviation from its start, initially 0 and in the unit of its own channel: a
channel that is a thousand times its neighbour learns as fast, and weight decay pulls to the start, not to zero. Does not know
about files, images and training loops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import SHIFTED, Corrections, apply
from edge_resnet.compiler.graph.placement import quantized_weights, tensorrt_pairs
from edge_resnet.compiler.graph.scales import weight_scales
from edge_resnet.core.errors import CalibrationError
from edge_resnet.quantization.executor import Executor, read_by

__all__ = ["FakeQuantized", "Fp32Teacher", "Layer"]

#: Factor on the logarithm of a range, whose gradient sums over thousands of values: a step of SGD relative to one on a weight.
_RANGE_GAIN = 1.0
#: The largest root mean square of a parameter's gradient. Layers that INT8 breaks start with gradients a thousand times those of
#: the others, and a single step with them would break the whole network.
_MAX_GRADIENT = {"turn": 0.05, "stretch": 0.05, "shift": 0.05, "width": 0.05}
#: Symmetric int8, as TensorRT stores weights.
_LIMIT = 127


class Layer(nn.Module):
    """The trainable weights and bias of one node: ``weight`` in float, or on its int8 grid if ``scales`` are given.

    Parameters: ``turn``, the deviation of the weights relative to the channel's largest weight; ``stretch``, of the scales, a
    logarithm; ``shift``, of the bias, relative to the magnitude of the layer's output. A ``fixed`` layer (option A's shortcut)
    has none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scales: Tensor | None, *, fixed: bool = False) -> None:
        super().__init__()
        self._shape = (-1, *[1] * (weight.dim() - 1))
        magnitude = weight.abs().flatten(1).sum(1) / math.sqrt(weight[0].numel()) + (0 if bias is None else bias.abs())
        self.fixed = fixed
        self.register_buffer("start", weight)
        self.register_buffer("unit", _units(weight))
        self.register_buffer("first_scales", scales)
        self.register_buffer("first_bias", bias)
        self.register_buffer("magnitude", magnitude)
        self.start: Tensor
        self.unit: Tensor
        self.first_scales: Tensor | None
        self.first_bias: Tensor | None
        self.magnitude: Tensor
        self.turn = None if fixed else _deviation("turn", weight)
        self.shift = None if fixed or bias is None else _deviation("shift", bias)
        self.stretch = None if fixed or scales is None else _deviation("stretch", scales)

    def master(self) -> Tensor:
        """The weights as trained, not rounded."""
        return self.start if self.turn is None else self.start + self.unit * self.turn

    def scales(self) -> Tensor | None:
        """The int8 step of each output channel, (O,); None for a layer in high precision."""
        return self.first_scales if self.first_scales is None or self.stretch is None else self.first_scales * self.stretch.exp()

    def integers(self) -> Tensor:
        """The weights in int8 steps, whole numbers in ±127; the gradient passes rounding and is zero for clipped weights."""
        scales = self.scales()
        if scales is None:
            raise CalibrationError("a layer in high precision has no integers")
        steps = self.master() / scales.view(self._shape)
        # torch's gradient is zero at the bound itself, where the largest weight of every channel lies: hence half a step more.
        inside = torch.clamp(steps, -_LIMIT - 0.5, _LIMIT + 0.5)
        return inside + (torch.clamp(torch.round(steps), -_LIMIT, _LIMIT) - inside).detach()

    def weight(self) -> Tensor:
        """The weights that the engine multiplies by."""
        scales = self.scales()
        return self.master() if scales is None else self.integers() * scales.view(self._shape)

    def bias(self) -> Tensor | None:
        """The bias, (O,) float32: INT8 adds it to sums of 32 bits."""
        return self.first_bias if self.first_bias is None or self.shift is None else self.first_bias + self.magnitude * self.shift


class FakeQuantized(nn.Module):
    """(N, 3, H, W) float32, normalised → logits (N, classes) of INT8, with gradients for weights, biases, scales and ranges.

    ``model``: the FP32 graph as exported. ``table``: its initial ranges. ``corrections``: earlier corrections, whose rounded
    weights the training starts from. Nodes that ``table.recipe`` keeps in high precision are trained in float. Raises
    CalibrationError for a graph that was not exported by this package, or a table of another graph.
    """

    def __init__(self, model: onnx.ModelProto, table: CalibrationTable, corrections: Corrections | None = None) -> None:
        super().__init__()
        graph = apply(model, corrections)
        keep = frozenset(table.recipe.keep_high_precision)
        self.pairs = tuple(tensorrt_pairs(graph, keep))
        self.quantized = tuple(quantized_weights(graph, keep))
        missing = [pair.range_of for pair in self.pairs if pair.range_of not in table.amax]
        if missing:
            raise CalibrationError(f"the calibration table has no range for {missing[0]}", hint="build the artifact again")
        self._executor = Executor(_body(graph, model), list(self.pairs))
        self._nodes = {node.name: node for node in graph.graph.node if node.op_type in ("Conv", "Gemm")}
        fixed = _selections(model)
        scales = {} if corrections is None else corrections.scales
        self.layers = nn.ModuleDict()
        for name in self._nodes:
            self.layers[_key(name)] = self._layer(name, scales, fixed=name in fixed)
        self._ranges = tuple(dict.fromkeys(pair.range_of for pair in self.pairs))
        first = {tensor: torch.tensor(table.amax[tensor] / _LIMIT, dtype=torch.float32) for tensor in self._ranges}
        for tensor, step in first.items():
            self.register_buffer(f"step {_key(tensor)}", step)
        # The step of an exact input stays one pixel value.
        self.widths = nn.ParameterDict({_key(t): _deviation("width", first[t]) for t in self._ranges if t != SHIFTED})
        weights = {name for node in self._nodes.values() for name in node.input[1:]}
        self._constants = tuple(name for name in self._executor.values if name not in weights)
        for name in self._constants:
            self.register_buffer(f"constant {_key(name)}", self._executor.values[name], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The logits of TensorRT's INT8."""
        steps = self.steps()
        return self._executor.run(images, self._values(), read=read_by(steps))

    def layer(self, name: str) -> Layer:
        """The layer of the node of that name."""
        layer = self.layers[_key(name)]
        assert isinstance(layer, Layer)
        return layer

    def names(self) -> tuple[str, ...]:
        """The names of the nodes with weights, in graph order."""
        return tuple(self._nodes)

    def steps(self) -> dict[str, Tensor]:
        """The int8 step of each quantized tensor, ()."""
        return {tensor: self._step(tensor) for tensor in self._ranges}

    def amax(self) -> dict[str, float]:
        """The range of each quantized tensor, as a calibration table holds it."""
        return {tensor: _LIMIT * float(step.detach()) for tensor, step in self.steps().items()}

    def _step(self, tensor: str) -> Tensor:
        first = getattr(self, f"step {_key(tensor)}")
        assert isinstance(first, Tensor)
        key = _key(tensor)
        return first * (_RANGE_GAIN * self.widths[key]).exp() if key in self.widths else first

    def _values(self) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {name: getattr(self, f"constant {_key(name)}") for name in self._constants}
        for name, node in self._nodes.items():
            layer = self.layer(name)
            values[node.input[1]] = layer.weight()
            bias = layer.bias()
            if bias is not None:
                values[node.input[2]] = bias
        return values

    def _layer(self, name: str, known: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float32]]], *, fixed: bool) -> Layer:
        node, values = self._nodes[name], self._executor.values
        weight = values[node.input[1]]
        scales = None
        if name in self.quantized:
            scales = torch.from_numpy(np.array(known[name] if name in known else weight_scales(weight.numpy())))
        return Layer(weight, values[node.input[2]] if len(node.input) > 2 else None, scales, fixed=fixed)


class Fp32Teacher(nn.Module):
    """(N, 3, H, W) float32, normalised → logits (N, classes) of the FP32 graph, without gradients: the teacher."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._executor = Executor(_body(model, model), [])
        for name, value in self._executor.values.items():
            self.register_buffer(f"constant {_key(name)}", value, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The logits of FP32."""
        return self._executor.run(images, {name: getattr(self, f"constant {_key(name)}") for name in self._executor.values})


def _deviation(kind: str, start: Tensor) -> nn.Parameter:
    """A parameter of the shape of ``start``, initially 0, whose gradient is limited to ``_MAX_GRADIENT``."""
    parameter, maximum = nn.Parameter(torch.zeros_like(start)), _MAX_GRADIENT[kind]

    def limited(gradient: Tensor) -> Tensor:
        size = gradient.square().mean().sqrt()
        return gradient * (maximum / size.clamp_min(maximum))

    parameter.register_hook(limited)  # type: ignore[no-untyped-call]  # torch types it so
    return parameter


def _units(weight: Tensor) -> Tensor:
    """The unit of each weight's deviation.

    The largest weight of its output channel, times the largest share of it that any output channel has for this input channel, at
    least a step of int8. So a network learns the same way however its channels are scaled against each other.
    """
    flat = weight.abs().flatten(2).amax(2) if weight.dim() > 2 else weight.abs()
    rows = flat.amax(1, keepdim=True)
    shares = (flat / rows.clamp_min(torch.finfo(flat.dtype).tiny)).amax(0, keepdim=True).clamp_min(1 / _LIMIT)
    return (rows * shares).view(*flat.shape, *[1] * (weight.dim() - 2))


def _body(graph: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """The corrected graph after the normalisation: its input is (N, 3, H, W) float32, as in a training loop.

    If the input is exact, the graph continues from pixel - mean, which is the normalised input multiplied by the deviation.
    """
    exact = any(node.name == SHIFTED for node in graph.graph.node)
    multiply = next((node for node in model.graph.node if node.op_type == "Mul"), None)
    nodes = list(graph.graph.node)
    last = next((index for index, node in enumerate(nodes) if node.op_type == ("Sub" if exact else "Mul")), None)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if multiply is None or last is None or multiply.input[1] not in constants:
        raise CalibrationError("the graph does not begin with Sub and Mul, as export writes it", hint="build the artifact again")
    cut = nodes[last].output[0]
    body = onnx.ModelProto()
    body.CopyFrom(graph)
    del body.graph.node[:], body.graph.input[:]
    size = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:3]
    start = "normalised" if exact else cut
    body.graph.input.append(helper.make_tensor_value_info(start, onnx.TensorProto.FLOAT, ["batch", 3, *size]))
    if exact:
        back = 1 / numpy_helper.to_array(constants[multiply.input[1]]).astype(np.float64)
        body.graph.initializer.append(numpy_helper.from_array(back.astype(np.float32), "normalised.back"))
        body.graph.node.append(helper.make_node("Mul", [start, "normalised.back"], [cut], name="normalised.mul"))
    body.graph.node.extend(nodes[last + 1 :])
    return body


def _selections(model: onnx.ModelProto) -> frozenset[str]:
    """Convolutions that only select channels of their input: option A's shortcuts, which have no parameters."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = set()
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 2:
            weight = numpy_helper.to_array(constants[node.input[1]])
            rows = weight.reshape(weight.shape[0], -1)
            if weight.shape[2:] == (1, 1) and int((rows != 0).sum(axis=1).max()) <= 1:
                found.add(node.name)
    return frozenset(found)


def _key(name: str) -> str:
    """A name without dots, which torch does not allow."""
    return name.replace(".", "/")
