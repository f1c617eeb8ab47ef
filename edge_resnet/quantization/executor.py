"""Runs an exported graph in torch, node by node, so that gradients reach what INT8 rounds.

Does not know about images or methods, and only knows the operators that can be placed in INT8: those of our own graphs, what the
corrections add, and those of other classifiers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
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
from edge_resnet.compiler.graph.scales import weight_scales
from edge_resnet.core.errors import CalibrationError
from edge_resnet.network.training.epoch import uses_bf16

__all__ = [
    "LARGE_SIDE",
    "Attributes",
    "Executor",
    "FakeQuantize",
    "InputHook",
    "OutputHook",
    "PairReader",
    "channels_last",
    "read_by",
    "round_weight",
]

#: Called with each quantized pair and its float tensor; returns the tensor that the pair's readers get.
PairReader: TypeAlias = Callable[[Pair, Tensor], Tensor]
#: Called with each node's name and output; returns the tensor that replaces the output.
OutputHook: TypeAlias = Callable[[str, Tensor], Tensor]
#: Called with each node's name and its inputs, as the node reads them.
InputHook: TypeAlias = Callable[[str, list[Tensor]], None]
Attributes: TypeAlias = Mapping[str, Any]

#: Side of the images from which on convolutions compute in bfloat16, if the processor does. On CIFAR ResNet-20 its own rounding
#: cost a tenth (error 0.00074 in place of 0.00068), on ResNet-18 a fortieth.
LARGE_SIDE = 128
#: Values per piece: with its intermediates it fits into the cache of one core.
_PIECE = 1 << 16


class FakeQuantize(torch.autograd.Function):
    """x → round(x / step) * step, the integer clamped to -128..127, with the straight-through gradient.

    The gradient of ``step`` is that of learned step size quantization (Esser et al. 2020, equation 3). On a processor both
    directions work on pieces that stay in its cache: as whole tensors, this took more time than ResNet-50's convolutions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Quantize ``x`` (n, C, ...), float32 or bfloat16, by ``step``, float32, () or (C,). The result has the ``dtype``."""
        x = _dense(x)
        ctx.save_for_backward(x, step)
        if not _by_pieces(x):
            return (torch.clamp(torch.round(x.float() / _along(step, x)), -128, 127) * _along(step, x)).to(dtype)
        quantized, steps = torch.empty_like(x, dtype=dtype), _Steps(step)
        for piece, values in zip(steps.pieces(quantized), steps.pieces(x), strict=True):
            ratio = values.float() * steps.inverse(len(values))
            torch.mul(ratio.round_().clamp_(-128, 127), steps.value(len(values)), out=piece)
        return quantized

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of ``x`` and ``step``."""
        x, step = ctx.saved_tensors
        if not _by_pieces(x):
            ratio = x.float() / _along(step, x)
            inside = (ratio >= -128) & (ratio <= 127)
            error = torch.clamp(ratio, -128, 127).round() - ratio * inside
            total = (error * grad[0].float()).sum_to_size(_along(step, x).shape)
            return (grad[0] * inside).to(x.dtype), total.view(step.shape), None
        gradient, steps, given = torch.empty_like(x), _Steps(step), _dense(grad[0])
        total = torch.zeros(steps.size)
        for piece, values, towards in zip(steps.pieces(gradient), steps.pieces(x), steps.pieces(given), strict=True):
            ratio = values.float() * steps.inverse(len(values))
            clamped = ratio.clamp(-128, 127)
            inside = ratio == clamped
            torch.mul(towards, inside, out=piece)
            total[: len(values)].addcmul_(clamped.round_().sub_(ratio.mul_(inside)), towards.float())
        return gradient, total.view(-1, step.numel()).sum(0).view(step.shape), None


class _Steps:
    """The pieces of a tensor and the steps of their values. ``step``: () for one, or (C,) for one of each channel."""

    def __init__(self, step: Tensor) -> None:
        count = step.numel()
        #: A piece holds whole rows of channels, which lie innermost in memory.
        self.size = max(1, _PIECE // count) * count
        self._values = step.expand(count).repeat(self.size // count) if count > 1 else step.reshape(1)
        self._inverses = self._values.reciprocal()

    def pieces(self, tensor: Tensor) -> Sequence[Tensor]:
        """Flat views of a dense tensor in the order of its memory."""
        strides: tuple[int, ...] = tensor.stride()
        order = sorted(range(tensor.dim()), key=lambda axis: -strides[axis])
        return torch.split(tensor.detach().permute(order).reshape(-1), self.size)

    def value(self, count: int) -> Tensor:
        """The steps of the first ``count`` values of a piece."""
        return self._values[:count]

    def inverse(self, count: int) -> Tensor:
        """One over ``value``."""
        return self._inverses[:count]


def _dense(x: Tensor) -> Tensor:
    """``x`` with its channels innermost in memory."""
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)


def _by_pieces(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _along(step: Tensor, x: Tensor) -> Tensor:
    """Steps per channel in the shape that fits (n, C, ...)."""
    return step.view(1, -1, *[1] * (x.dim() - 2)) if step.dim() else step


def read_by(steps: Mapping[str, Tensor]) -> PairReader:
    """A reader like TensorRT's: every pair is fake-quantized by the step of the tensor whose range it takes."""

    def read(pair: Pair, x: Tensor) -> Tensor:
        quantized: Tensor = FakeQuantize.apply(x, steps[pair.range_of])
        return quantized

    return read


def channels_last(value: npt.NDArray[Any], device: torch.device | None = None) -> Tensor:
    """A copy on ``device``, the processor by default; filters lie in memory with their channels innermost."""
    tensor = torch.from_numpy(np.array(value)).to(device or "cpu")
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def round_weight(weight: Tensor) -> Tensor:
    """A filter (O, ...) with each value rounded to the nearest step of its output channel's scale."""
    scales = torch.from_numpy(weight_scales(weight.numpy())).view(-1, *[1] * (weight.dim() - 1))
    return torch.clamp(torch.round(weight / scales), -127, 127) * scales


class Executor:
    """One graph on ``device``, the processor by default.

    ``values`` are its initializers as float32 tensors, ``attributes`` those of its nodes, both by name.

    Filters lie in memory with their channels last, and so do the activations: convolutions take half the time. Raises
    CalibrationError for an unknown operator.
    """

    def __init__(self, model: onnx.ModelProto, pairs: list[Pair], device: torch.device | None = None) -> None:
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
        self.values = {t.name: channels_last(numpy_helper.to_array(t), device) for t in model.graph.initializer}
        side = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self._device = device or torch.device("cpu")
        #: Whether ``in_half`` computes in bfloat16.
        self.halves = side >= LARGE_SIDE and uses_bf16("auto", self._device)
        #: The filters as ``in_half`` computes with them: autocast would convert them in every run.
        self.halved = {
            name: self.values[name].bfloat16()
            for name in {node.input[1] for node in self._nodes if node.op_type == "Conv"}
            if self.halves and name in self.values
        }

    def in_half(self) -> AbstractContextManager[None]:
        """While it is open, convolutions of large images compute in bfloat16; pass ``halved`` to ``run`` then."""
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.halves)

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


def _convolve(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right):
        inputs = [F.pad(inputs[0], (left, right, top, bottom)), *inputs[1:]]
        top = left = 0
    bias = inputs[2] if len(inputs) > 2 else None
    if bias is not None and bias.requires_grad and not inputs[1].requires_grad:
        # The library computes the gradient of the weights, as much work as that of x, whenever it computes that of the bias.
        output = _convolve(inputs[:2], {**attributes, "pads": [top, left, top, left]})
        return output + bias.to(output.dtype).view(1, -1, 1, 1)
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
