"""Runs an exported graph in torch, node by node, so that gradients reach what INT8 rounds.

Does not know about images or methods, and only knows the operators that can be placed in INT8: those of our own graphs, what the
corrections add, and those of other classifiers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

from edge_resnet.compiler.graph.placement import Pair
from edge_resnet.core.errors import CalibrationError

__all__ = ["Attributes", "Executor", "FakeQuantize", "InputHook", "OutputHook", "PairReader", "read_by"]

#: Called with each quantized pair and its float tensor; returns the tensor that the pair's readers get.
PairReader: TypeAlias = Callable[[Pair, Tensor], Tensor]
#: Called with each node's name and output; returns the tensor that replaces the output.
OutputHook: TypeAlias = Callable[[str, Tensor], Tensor]
#: Called with each node's name and its inputs, as the node reads them.
InputHook: TypeAlias = Callable[[str, list[Tensor]], None]
Attributes: TypeAlias = Mapping[str, Any]

#: Values per piece: with its intermediates it fits into the cache of one core.
_PIECE = 1 << 16


class FakeQuantize(torch.autograd.Function):
    """x → round(x / scale) * scale, the integer clamped to -128..127, with the straight-through gradient.

    The gradient of ``scale`` is that of learned step size quantization (Esser et al. 2020, equation 3). Both directions work on
    pieces that stay in the processor's cache: as whole tensors, this took more time than ResNet-50's convolutions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        """Quantize ``x`` of any shape, float32 or bfloat16, by ``scale`` (), float32."""
        ctx.save_for_backward(x, scale)
        inverse, step, quantized = float(scale.reciprocal()), float(scale), torch.empty_like(x)
        for piece, values in zip(_pieces(quantized), _pieces(x), strict=True):
            torch.mul(values, inverse, out=piece).round_().clamp_(-128, 127).mul_(step)
        return quantized

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of ``x`` and ``scale``."""
        x, scale = ctx.saved_tensors
        inverse, gradient, total = float(scale.reciprocal()), torch.empty_like(x), torch.zeros((), dtype=torch.float32)
        given = torch.empty_like(x).copy_(grad[0])  # in the memory layout of x
        for piece, values, towards in zip(_pieces(gradient), _pieces(x), _pieces(given), strict=True):
            ratio = values * inverse
            clamped = ratio.clamp(-128, 127)
            inside = ratio == clamped
            torch.mul(towards, inside, out=piece)
            error = clamped.round_().sub_(ratio.mul_(inside))
            total += error.mul_(towards).sum(dtype=torch.float32)
        return gradient, total


def _pieces(tensor: Tensor) -> Sequence[Tensor]:
    """Flat views of a dense tensor in the order of its memory."""
    strides: tuple[int, ...] = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda axis: -strides[axis])
    return torch.split(tensor.detach().permute(order).reshape(-1), _PIECE)


def read_by(steps: Mapping[str, Tensor]) -> PairReader:
    """A reader like TensorRT's: every pair is fake-quantized by the step of the tensor whose range it takes."""

    def read(pair: Pair, x: Tensor) -> Tensor:
        quantized: Tensor = FakeQuantize.apply(x, steps[pair.range_of])
        return quantized

    return read


class Executor:
    """One graph; ``values`` are its initializers as float32 tensors, ``attributes`` those of its nodes, both by name.

    Filters lie in memory with their channels last, and so do the activations: convolutions take half the time. Raises
    CalibrationError for an unknown operator.
    """

    def __init__(self, model: onnx.ModelProto, pairs: list[Pair]) -> None:
        self._nodes = list(model.graph.node)
        self.attributes = {n.name: {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute} for n in self._nodes}
        unknown = {node.op_type for node in self._nodes} - _OPERATORS.keys()
        if unknown:
            raise CalibrationError(
                f"corrections cannot be learned through {min(unknown)}",
                hint="learn no corrections: edge-resnet build --correct none",
            )
        self._pairs = {reader: pair for pair in pairs for reader in pair.readers}
        self._uses = Counter(name for node in self._nodes for name in node.input)
        self._input, self._output = model.graph.input[0].name, model.graph.output[0].name
        self.values = {t.name: _channels_last(numpy_helper.to_array(t)) for t in model.graph.initializer}

    def run(
        self,
        images: Tensor,
        values: Mapping[str, Tensor] | None = None,
        *,
        read: PairReader | None = None,
        on_input: InputHook | None = None,
        on_output: OutputHook | None = None,
    ) -> Tensor:
        """(n, H, W, 3) uint8 → logits (n, classes). ``values`` replace initializers; ``on_output`` may replace every output."""
        constants = {**self.values, **(values or {})}
        live, left = {self._input: images}, Counter(self._uses)
        quantized: dict[str, Tensor] = {}
        for node in self._nodes:
            inputs = []
            for index, name in enumerate(node.input):
                pair = self._pairs.get((node.name, index)) if read is not None else None
                if pair is not None and read is not None:
                    if name not in quantized:
                        quantized[name] = read(pair, live[name])
                    inputs.append(quantized[name])
                else:
                    inputs.append(constants[name] if name in constants else live[name])
            if on_input is not None:
                on_input(node.name, inputs)
            output = _OPERATORS[node.op_type](inputs, self.attributes[node.name])
            live[node.output[0]] = output if on_output is None else on_output(node.name, output)
            for name in node.input:
                left[name] -= 1
                if left[name] == 0:  # a tensor without further readers is freed: inference needs the memory of two blocks
                    live.pop(name, None)
                    quantized.pop(name, None)
        return live[self._output]


def _channels_last(value: npt.NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.array(value))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _convolve(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right):
        inputs = [F.pad(inputs[0], (left, right, top, bottom)), *inputs[1:]]
        top = left = 0
    bias = inputs[2] if len(inputs) > 2 else None
    stride, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    groups = attributes.get("group", 1)
    return F.conv2d(inputs[0], inputs[1], bias, tuple(stride), (top, left), tuple(dilation), groups)


def _pool(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    """The largest of each window. Padding is never the largest."""
    window = _Window.of(inputs[0], attributes)
    padded = F.pad(inputs[0], window.pads, value=float("-inf")) if any(window.pads) else inputs[0]
    return F.max_pool2d(padded, window.kernel, window.strides, 0, window.dilations)


def _average(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    """The mean of each window, of the pixels of the image unless ``count_include_pad``; never of what ``ceil_mode`` adds."""
    window, x = _Window.of(inputs[0], attributes), inputs[0]
    if not any(window.pads):
        return F.avg_pool2d(x, window.kernel, window.strides)
    inside = torch.ones_like(x[:1, :1])
    if attributes.get("count_include_pad", 0):
        top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
        inside = F.pad(inside, (left, right, top, bottom), value=1.0)
        beyond = (0, window.pads[1] - right, 0, window.pads[3] - bottom)
        inside = F.pad(inside, beyond)
    else:
        inside = F.pad(inside, window.pads)
    means = F.avg_pool2d(F.pad(x, window.pads), window.kernel, window.strides)
    return means / F.avg_pool2d(inside, window.kernel, window.strides)


@dataclass(frozen=True)
class _Window:
    """A pooling's window. ``pads``: left, right, top, bottom, with the rows and columns that ``ceil_mode`` adds at the end."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @classmethod
    def of(cls, x: Tensor, attributes: Attributes) -> _Window:
        """The window of a node on (n, C, H, W)."""
        kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
        dilations, pads = attributes.get("dilations", [1, 1]), list(attributes.get("pads", [0, 0, 0, 0]))
        for axis in range(2):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            size = x.shape[2 + axis] + pads[axis] + pads[2 + axis]
            rest = (size - reach) % strides[axis]
            # A window that would begin in the padding at the end is left out.
            begins = size - reach - rest + strides[axis]
            if attributes.get("ceil_mode", 0) and rest and begins < x.shape[2 + axis] + pads[axis]:
                pads[2 + axis] += strides[axis] - rest
        top, left, bottom, right = pads
        return cls(_pair(kernel), _pair(strides), _pair(dilations), (left, right, top, bottom))


def _pair(values: list[int]) -> tuple[int, int]:
    first, second = values
    return first, second


def _batch_norm(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    x, scale, bias, mean, variance = inputs[:5]
    return F.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _pad(inputs: list[Tensor], attributes: Attributes) -> Tensor:  # noqa: ARG001 - every operator has the same signature
    _, _, top, left, _, _, bottom, right = (int(value) for value in inputs[1])
    return F.pad(inputs[0], (left, right, top, bottom))


_OPERATORS: Mapping[str, Callable[[list[Tensor], Attributes], Tensor]] = {
    "Cast": lambda inputs, _: inputs[0].float(),
    "Transpose": lambda inputs, attributes: inputs[0].permute(*attributes["perm"]),
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Pad": _pad,
    "Conv": _convolve,
    "Relu": lambda inputs, _: torch.relu(inputs[0]),
    "MaxPool": _pool,
    "AveragePool": _average,
    "BatchNormalization": _batch_norm,
    "Concat": lambda inputs, attributes: torch.cat(inputs, attributes["axis"]),
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean((2, 3), keepdim=True),
    "Flatten": lambda inputs, _: inputs[0].flatten(1),
    "Gemm": lambda inputs, _: F.linear(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None),
}
