"""The covariance of what each quantized convolution reads, over calibration images. Does not know what it is used for.

The graph runs in torch with its inputs quantized as TensorRT quantizes them. A convolution reads patches of its input; a few of
them per image are enough, because neighbouring patches say nearly the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.core.records import Progress
from edge_resnet.images.imagecache import CachedImages
from edge_resnet.quantization.executor import Attributes, Executor, read_by
from edge_resnet.quantization.workers import workers

__all__ = ["InputStatistics", "QuantizedGraph", "input_statistics"]

#: Patches per weight of a filter over all images, and at least so many per image: fewer leave directions in which nothing was
#: seen.
_PATCHES_PER_WEIGHT, _MIN_PATCHES = 3, 8
#: Pixels per run of the graph on one core.
_PIXELS = 4 * 224 * 224
#: Patches that are gathered before their products are summed.
_ROWS = 512
#: Torch multiplies matrices of int8 by the processor's instructions for that; elsewhere by a loop that takes longer than float32,
#: forty times as long on a Xeon with AVX512 and without VNNI.
_MULTIPLIES_INTEGERS = hasattr(torch, "_int_mm") and getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
#: Torch 2.14 returns what lay in memory for a matrix with one row, and small ones take no time.
_MIN_COLUMNS = 16
#: Inputs from which on only the upper triangle of the products is computed, in so many bands.
_WIDE, _BANDS = 1024, 4


@dataclass(frozen=True, eq=False)
class QuantizedGraph:
    """An FP32 graph and what TensorRT's form of it needs: ``amax``, the ranges of its pairs, and ``keep``, the nodes in high
    precision."""

    model: onnx.ModelProto
    amax: Mapping[str, float]
    keep: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """Of one layer's patches, by group ``covariance`` (G, K, K) and ``mean`` (G, K), float32, in the input's unit.

    The K values of a patch are ordered as the weights of one filter, (channel, row, column).
    """

    covariance: Tensor
    mean: Tensor


def input_statistics(
    quantized: QuantizedGraph, images: CachedImages, layers: Sequence[str], *, progress: Progress | None = None
) -> dict[str, InputStatistics]:
    """The statistics of the convolutions ``layers`` of ``quantized`` over the images.

    The result is the same in every run, however many cores there are.
    """
    model, count = quantized.model, len(images)
    size = max(1, _PIXELS // images.take([0])[0, :, :, 0].size)
    pairs = tensorrt_pairs(model, quantized.keep)
    steps = {pair.range_of: quantized.amax[pair.range_of] / 127 for pair in pairs}
    executor = Executor(model, pairs)
    read = read_by({tensor: torch.tensor(step) for tensor, step in steps.items()})
    nodes = {node.name: node for node in model.graph.node}
    units = {reader: steps[pair.range_of] for pair in pairs for reader in pair.readers}
    sums = {name: _Sums(_Filter.of(executor, nodes[name]), units[name, 0]) for name in layers}

    @torch.inference_mode()
    def gather(batch: _Batch) -> list[_Patches]:
        found: list[_Patches] = []

        def note(name: str, inputs: list[Tensor]) -> None:
            if name in sums:
                found.append(_Patches(name, sums[name].sample(inputs[0], count, np.random.default_rng(batch.number))))

        with executor.in_half():
            executor.run(torch.from_numpy(batch.pixels), executor.halved, read=read, on_input=note)
        return found

    @torch.inference_mode()
    def add(patches: _Patches) -> None:
        sums[patches.layer].add(patches.steps)

    with workers() as pool:
        for done, found in enumerate(pool.map(gather, starmap(_Batch, enumerate(images.batches(size))))):
            if progress is not None:
                progress("correlations", min(done * size, count), count)
            for _ in pool.map(add, found):
                pass  # an error in a thread is raised here
    if progress is not None:
        progress("correlations", count, count)
    return {name: sums[name].result() for name in layers}


@dataclass(frozen=True, eq=False)
class _Batch:
    """``pixels`` (n, H, W, 3) uint8, and their ``number``, which seeds the sample of their patches."""

    number: int
    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Patches:
    """A sample of what a layer reads, ``steps`` (m, G, K) int8."""

    layer: str
    steps: Tensor


@dataclass(frozen=True)
class _Filter:
    """The shape of a convolution's filters."""

    groups: int
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, executor: Executor, node: onnx.NodeProto) -> _Filter:
        attributes: Attributes = executor.attributes[node.name]
        _, channels, height, width = executor.values[node.input[1]].shape
        stride, pads = attributes.get("strides", [1, 1]), attributes.get("pads", [0, 0, 0, 0])
        dilation, groups = attributes.get("dilations", [1, 1]), attributes.get("group", 1)
        return cls(groups, channels, (height, width), tuple(stride), tuple(pads), tuple(dilation))

    @property
    def size(self) -> int:
        """Weights of one filter."""
        return self.channels * self.kernel[0] * self.kernel[1]


class _Sums:
    """Sums over the patches of one layer, of whole numbers of steps."""

    def __init__(self, shape: _Filter, step: float) -> None:
        self._shape, self._step = shape, step
        self._products = torch.zeros(shape.groups, shape.size, shape.size)
        self._total = torch.zeros(shape.groups, shape.size, dtype=torch.float64)
        self._waiting: list[Tensor] = []
        self._count = 0

    def sample(self, x: Tensor, images: int, rng: np.random.Generator) -> Tensor:
        """Patches of some positions of (n, C, H, W), (m, G, K) int8 in steps, drawn by ``rng``; ``images``: of the whole pass."""
        shape = self._shape
        (top, left, bottom, right), (down, across) = shape.pads, shape.dilation
        rows_read, columns_read = (shape.kernel[0] - 1) * down + 1, (shape.kernel[1] - 1) * across + 1
        rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom)).contiguous()
        count, height, width, channels = rows.shape
        out = ((height - rows_read) // shape.stride[0] + 1, (width - columns_read) // shape.stride[1] + 1)
        positions = count * out[0] * out[1]
        wanted = count * max(_MIN_PATCHES, math.ceil(_PATCHES_PER_WEIGHT * shape.size / images))
        chosen = torch.from_numpy(np.sort(rng.choice(positions, min(positions, wanted), replace=False)))
        image, place = chosen // (out[0] * out[1]), chosen % (out[0] * out[1])
        first = (image * height + place // out[1] * shape.stride[0]) * width + place % out[1] * shape.stride[1]
        flat = rows.view(-1, channels)
        offsets = [y * down * width + x * across for y in range(shape.kernel[0]) for x in range(shape.kernel[1])]
        taken = torch.stack([flat[first + offset] for offset in offsets], dim=-1)
        steps = torch.round(taken / self._step).to(torch.int8)
        return steps.view(len(chosen), shape.groups, shape.size)

    def add(self, patches: Tensor) -> None:
        """Count ``patches``, (m, G, K) int8."""
        self._waiting.append(patches)
        self._count += len(patches)
        if sum(len(each) for each in self._waiting) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        patches = torch.cat(self._waiting).transpose(0, 1)  # (G, m, K)
        self._waiting.clear()
        self._total += patches.sum(1, dtype=torch.int64)
        size = patches.shape[2]
        band = size if size < _WIDE else -(-size // _BANDS)
        for products, each in zip(self._products, patches, strict=True):
            for start in range(0, size, band):
                products[start : start + band, start:] += _product(each[:, start : start + band], each[:, start:])

    def result(self) -> InputStatistics:
        """The statistics of all patches. Nothing can be added afterwards."""
        self._flush()
        mean = (self._total / self._count).float()
        upper, self._products = self._products, torch.empty(0)  # the sums of all layers are half of the memory of a build
        upper.div_(self._count).sub_(mean[:, :, None] * mean[:, None, :]).triu_()
        full = upper + upper.transpose(1, 2)
        full.diagonal(dim1=1, dim2=2).mul_(0.5)
        return InputStatistics(full.mul_(self._step**2), mean * self._step)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left.T @ right, of (m, A) and (m, B) int8, (A, B) float32 or int32.

    The product of integers is exact, and takes a quarter of the time where the processor multiplies them (AVX512-VNNI).
    """
    if _MULTIPLIES_INTEGERS and min(left.shape[1], right.shape[1]) >= _MIN_COLUMNS:
        return torch._int_mm(left.T.contiguous(), right.contiguous())
    return left.T.float() @ right.float()
