"""Cross-layer equalization: makes the ranges of channels similar without changing the function, as per-tensor int8 needs.

A positive factor per channel passes through ReLU, Add and pooling, so it can be multiplied into the convolutions that write a
tensor and divided out of those that read it (Nagel et al. 2019, section 4.1; with activations in place of weights: Xiao et al.
2023, section 4). All tensors of a residual stage are tied by its Adds and share one factor. Does not know about files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edge_resnet.compiler.graph.corrections import SHIFTED, Corrections, Floats
from edge_resnet.compiler.graph.placement import quantized_weights, tensorrt_pairs
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.images.imagecache import CachedImages
from edge_resnet.quantization.executor import LARGE_SIDE, Executor, channels_last, read_by, round_weight
from edge_resnet.quantization.simulate import Logits, relative_error

__all__ = ["EXPONENTS", "STARTS", "Group", "balance", "channel_groups", "equalize", "even_out", "scale_channels"]

_log = logging.getLogger(__name__)

#: Exponents of activations and weights that ``balance`` tries (see ``equalize``): no equalization, three degrees for the
#: activations alone, and both. The last two undo any scaling between layers. The weights pay for evened activations.
EXPONENTS = ((0.0, 0.0), (0.5, 0.0), (0.75, 0.0), (1.0, 0.0), (0.5, 0.5))
#: Those that ``even_out`` tries. The first loses least on networks as they come, of 0 to 1: the logits' error by rounded
#: activations alone is 0.0030 on ResNet-50 and 0.0018 on ResNet-18, in place of 0.0040 and 0.0021 without. The second undoes any
#: scaling.
STARTS = ((0.5, 0.0), (1.0, 0.0))
#: The second is taken where its error is less than this share of the first's: the images are few, and weights pay for it.
_CLEARLY = 0.7
#: Errors below this are all the same: nothing is left to gain.
_NEGLIGIBLE = 1e-4
#: Images that they are compared on, of small and of large size.
_IMAGES, _LARGE_IMAGES, _BATCH = 32, 16, 8
_TYING = ("Relu", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten")
#: Channels below this share of the largest are treated as that large: a dead channel must not be scaled up to full range.
_MIN_SHARE = 1e-5


@dataclass(frozen=True)
class Group:
    """Tensors whose channels share a factor.

    ``writers``: the convolutions that write them. ``readers``: the nodes with weights that read them.
    """

    tensors: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]


def channel_groups(model: onnx.ModelProto) -> list[Group]:
    """The groups of a graph whose writers are all convolutions, in graph order."""
    root: dict[str, str] = {}

    def find(tensor: str) -> str:
        while root.setdefault(tensor, tensor) != tensor:
            tensor = root[tensor]
        return tensor

    constants = {tensor.name for tensor in model.graph.initializer}
    weight_of = {node.name: node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    for node in model.graph.node:
        if node.op_type in _TYING:
            for tensor in node.input:
                root[find(tensor)] = find(node.output[0])
    tensors: dict[str, list[str]] = {}
    writers: dict[str, list[str]] = {}
    readers: dict[str, list[str]] = {}
    closed = {find(tensor.name) for tensor in model.graph.output} | {find(name) for name in constants}
    for node in model.graph.node:
        group = find(node.output[0])
        tensors.setdefault(group, []).append(node.output[0])
        if node.op_type in ("Conv", "Gemm"):
            writers.setdefault(group, []).append(node.name)
            readers.setdefault(find(node.input[0]), []).append(node.name)
            if _grouped(node):
                closed |= {group, find(node.input[0])}
        elif node.op_type not in _TYING:
            closed |= {group, *(find(name) for name in node.input if name not in constants)}
    counts = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:  # a Flatten of a map makes several features of a channel
        if node.op_type in ("Conv", "Gemm"):
            group = find(node.input[0])
            closed |= {group for name in writers.get(group, []) if counts[weight_of[name]][0] != counts[node.input[1]][1]}
    open_groups = [group for group in tensors if group not in closed and group in writers and group in readers]
    return [Group(tuple(tensors[g]), tuple(writers[g]), tuple(readers[g])) for g in open_groups]


def equalize(model: onnx.ModelProto, ranges: Mapping[str, Floats], activations: float, weights: float) -> Corrections:
    """Weights and biases with which channel c of each group is scaled by range(c)^-activations * column(c)^weights.

    ``ranges``: (C,) the range of each channel, by measured tensor; column(c) is the largest absolute weight of the
    readers for that channel. If the exponents sum to 1, the result does not depend on how the network's channels were scaled.
    """
    return scale_channels(model, _factors(model, ranges, activations, weights))


def scale_channels(model: onnx.ModelProto, factors: Sequence[tuple[Group, npt.NDArray[np.float64]]]) -> Corrections:
    """Weights and biases with which the channels of each group are scaled by its positive factors, (C,)."""
    parameters = _Parameters(model)
    for group, factor in factors:
        parameters.scale(group, factor)
    return parameters.corrections()


def _factors(
    model: onnx.ModelProto, ranges: Mapping[str, Floats], activations: float, weights: float
) -> list[tuple[Group, npt.NDArray[np.float64]]]:
    """The factors (C,) of each group by ``equalize``."""
    parameters, found = _Parameters(model), []
    for group in channel_groups(model):
        measured = [ranges[tensor] for tensor in group.tensors if tensor in ranges]
        if not measured:
            continue
        # The columns of a group's readers have changed if they write the group before.
        factor = _factor(measured, [parameters.weight[name] for name in group.readers], activations, weights)
        parameters.scale(group, factor)
        found.append((group, factor))
    return found


class _Parameters:
    """Weights and biases of a graph in float64, by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        constants = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer if t.dims}
        nodes = {node.name: node for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
        self.weight = {name: constants[node.input[1]] for name, node in nodes.items()}
        self._bias = {name: constants[node.input[2]] for name, node in nodes.items() if len(node.input) > 2}
        self._changed: set[str] = set()

    def scale(self, group: Group, factor: npt.NDArray[np.float64]) -> None:
        """Multiply ``factor`` (C,) into what writes the group, and divide it out of what reads it."""
        for name in group.writers:
            self.weight[name] = self.weight[name] * factor.reshape(-1, *[1] * (self.weight[name].ndim - 1))
            if name in self._bias:
                self._bias[name] = self._bias[name] * factor
        for name in group.readers:
            self.weight[name] = self.weight[name] / factor.reshape(1, -1, *[1] * (self.weight[name].ndim - 2))
        self._changed |= {*group.writers, *group.readers}

    def corrections(self) -> Corrections:
        """What has changed, in float32."""
        return Corrections(
            floats={name: weight.astype(np.float32) for name, weight in self.weight.items() if name in self._changed},
            biases={name: bias.astype(np.float32) for name, bias in self._bias.items() if name in self._changed},
        )


def _factor(
    measured: list[Floats], readers: list[npt.NDArray[np.float64]], activations: float, weights: float
) -> npt.NDArray[np.float64]:
    """(C,) with geometric mean 1."""
    ranges = _shares([np.asarray(tensor, np.float64) for tensor in measured])
    columns = _shares([np.abs(weight).max(axis=(0, *range(2, weight.ndim))) for weight in readers])
    factor = ranges**-activations * columns**weights
    normed: npt.NDArray[np.float64] = factor / np.exp(np.log(factor).mean())
    return normed


def _shares(channels: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """(C,) for each channel its largest value over that of its tensor, the maximum over all tensors."""
    shares = np.max([values / max(values.max(), np.finfo(np.float64).tiny) for values in channels], axis=0)
    clipped: npt.NDArray[np.float64] = np.maximum(shares, _MIN_SHARE)
    return clipped


def _grouped(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)


def even_out(model: onnx.ModelProto, images: CachedImages, *, progress: Progress | None = None) -> Corrections:
    """The equalization of ``STARTS`` with which rounded activations change the logits clearly least.

    Ranges are those of up to 32 images, the error that of as many others: evened out, channels that are nearly dead in the first
    are loud in the others. The weights are not rounded: rounding makes up for most of what they pay.
    """
    return _Search(model, images, frozenset(), weights=False).best(STARTS, _CLEARLY, progress)


def balance(
    model: onnx.ModelProto, images: CachedImages, recipe: QuantRecipe, *, progress: Progress | None = None
) -> Corrections:
    """The equalization of ``EXPONENTS`` with which activations and weights, rounded to the nearest, change the logits least.

    On the images of ``even_out``.
    """
    search = _Search(model, images, frozenset(recipe.keep_high_precision), weights=True)
    return search.best(EXPONENTS, 1.0, progress)


class _Search:
    """Compares equalizations by the squared error of the logits. ``weights``: whether weights are rounded, too."""

    def __init__(self, model: onnx.ModelProto, images: CachedImages, keep: frozenset[str], *, weights: bool) -> None:
        self._model, self._total = model, _total(images)
        self._pairs = tensorrt_pairs(model, keep)
        self._rounded = frozenset(quantized_weights(model, keep)) if weights else frozenset()
        self._executor = Executor(model, self._pairs)
        self._maxima = self._measured(images)
        self._ranges = {tensor: values.mean(0) for tensor, values in self._maxima.items()}
        first = self._total if len(images) >= 2 * self._total else 0
        last = first + self._total
        self._batches = [torch.from_numpy(images.take(range(at, min(at + _BATCH, last)))) for at in range(first, last, _BATCH)]

    @torch.inference_mode()
    def best(self, candidates: Sequence[tuple[float, float]], share: float, progress: Progress | None) -> Corrections:
        """The first of ``candidates``, or the last whose error is less than ``share`` of the best before it."""
        reference = torch.cat([self._executor.run(batch) for batch in self._batches]).numpy()
        best, smallest = candidates[0], float("inf")
        for done, exponents in enumerate(candidates):
            if progress is not None:
                progress("equalize", done, len(candidates))
            error = self._error(*exponents, reference)
            _log.info("equalization (%g, %g): error %.5f on %d images", *exponents, error, self._total)
            if max(error, _NEGLIGIBLE) < share * smallest:
                best, smallest = exponents, error
        if progress is not None:
            progress("equalize", len(candidates), len(candidates))
        return equalize(self._model, self._ranges, *best) if any(best) else Corrections()

    @torch.inference_mode()
    def _measured(self, images: CachedImages) -> dict[str, Floats]:
        """(n, C) the largest absolute value of each channel in each image, of each tensor that either form quantizes."""
        wanted = set(measured_tensors(self._model))
        tensors = {node.name: node.output[0] for node in self._model.graph.node if node.output[0] in wanted}
        found: dict[str, list[Floats]] = {tensor: [] for tensor in tensors.values()}

        def note(name: str, output: Tensor) -> Tensor:
            if name in tensors:
                found[tensors[name]].append(output.abs().reshape(*output.shape[:2], -1).amax(2).numpy())
            return output

        for batch in images.batches(_BATCH, self._total):
            self._executor.run(torch.from_numpy(batch), on_output=note)
        return {tensor: np.concatenate(values) for tensor, values in found.items()}

    def _error(self, activations: float, weights: float, reference: Logits) -> float:
        """The error of the equalized network with its activations, and if wanted its weights, rounded.

        By the better of two ranges, one that clips the loudest images and one that clips none: which it is differs by network.
        """
        factors = _factors(self._model, self._ranges, activations, weights)
        values = self._values(scale_channels(self._model, factors))
        by_tensor = {tensor: factor for group, factor in factors for tensor in group.tensors}
        errors = []
        for over_images in (np.mean, np.max):
            steps = self._steps(by_tensor, over_images)
            logits = torch.cat([self._executor.run(batch, values, read=read_by(steps)) for batch in self._batches]).numpy()
            errors.append(relative_error(logits, reference))
        return min(errors)

    def _steps(
        self, factors: Mapping[str, npt.NDArray[np.float64]], over_images: Callable[[npt.NDArray[np.float64]], np.float64]
    ) -> dict[str, Tensor]:
        """The step of each tensor of the network with ``factors``, (C,) by tensor.

        ``over_images``: of the largest values (n,) in each image, the largest value that is represented.
        """
        steps = {}
        for tensor in dict.fromkeys(pair.range_of for pair in self._pairs):
            factor = factors.get(tensor, np.ones(1))
            largest = 127.0 if tensor == SHIFTED else float(over_images((self._maxima[tensor] * factor).max(1)))
            steps[tensor] = torch.tensor(max(largest, np.finfo(np.float32).tiny) / 127)
        return steps

    def _values(self, changed: Corrections) -> dict[str, Tensor]:
        """The initializers of the network with the weights and biases of ``changed``, its weights rounded if wanted."""
        values = {}
        for node in self._model.graph.node:
            if node.name in self._rounded or node.name in changed.floats:
                weight = changed.floats.get(node.name)
                tensor = self._executor.values[node.input[1]] if weight is None else channels_last(weight)
                values[node.input[1]] = round_weight(tensor) if node.name in self._rounded else tensor
            if node.name in changed.biases:
                values[node.input[2]] = torch.from_numpy(changed.biases[node.name])
        return values


def _total(images: CachedImages) -> int:
    large = images.take([0]).shape[1] >= LARGE_SIDE
    return min(_LARGE_IMAGES if large else _IMAGES, len(images))
