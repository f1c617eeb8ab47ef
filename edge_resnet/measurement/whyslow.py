"""Why INT8 is not faster than FP16, from an engine's layers, their times and the GPU. Does not read files or need TensorRT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_resnet.measurement.layers import UNKNOWN, Layer, LayerListing

__all__ = ["Cause", "Slowdown", "why_not_faster"]

Cause = Literal[
    "hardware", "no_detail", "no_int8", "float_products", "float_others", "moves", "adds", "wide_outputs", "small_batch"
]

_FLOATS = ("FP32", "FP16", "BF16")
#: Compute capabilities without INT8, from TensorRT's support matrix: P100 (6.0) has none; P4 (6.1) and V100 (7.0) have it, but
#: not on tensor cores. Jetson Nano and TX1 are 5.3, TX2 is 6.2. All GPUs from 7.2 on have both.
_WITHOUT_INT8 = ("6.0", "6.2")
_WITHOUT_INT8_TENSOR_CORES = ("6.1", "7.0")
#: Share of the time in INT8 above which only a larger batch can gain much.
_NEARLY_ALL_PERCENT = 80.0
_INSPECT = "edge-resnet inspect ARTIFACT --quantization"
_LEFT_REMEDY = f"{_INSPECT} says which of them were meant to be, and why"
_MOVES_REMEDY = f"they stand where layers differ in type or order; {_INSPECT} shows the pairs"
_WIDE_REMEDY = "edge-resnet build --fp16, where this builder fuses bias, ReLU and Add into the convolution"
_EMULATED_REMEDY = "edge-resnet build --fp16: this plan computes in FP16, with the rounding of INT8 as additional work"
_ADDS_REMEDY = f"an Add fuses where its shortcut has a pair of its own; {_INSPECT} shows the pairs"


@dataclass(frozen=True)
class Slowdown:
    """A cause that keeps INT8 from being faster, as a sentence, with the ``layers`` that show it.

    ``percent`` is their share of the time, None unless all of them are timed. ``remedy`` is empty if there is none.
    """

    cause: Cause
    text: str
    layers: tuple[str, ...] = ()
    percent: float | None = None
    remedy: str = ""


def why_not_faster(listing: LayerListing, compute_capability: str | None = None) -> tuple[Slowdown, ...]:
    """The causes that keep this engine from being faster in INT8, the GPU first; empty if there are none.

    ``compute_capability`` is that of the GPU that the engine was built for, such as ``8.7``; None if it is unknown.
    """
    found = [*_hardware(compute_capability), *_detail(listing)]
    working = [layer for layer in listing.layers if layer.works]
    products = [layer for layer in working if layer.multiplies]
    int8 = [layer for layer in products if layer.precision == "INT8"]
    # Layers other than products may write another type than they read; they compute in the type that they read.
    floats = [layer for layer in working if _computes_in(layer) in _FLOATS and not layer.moves]
    if products and not int8 and any(layer.precision in _FLOATS for layer in products):
        text = "no convolution computes in INT8"
        # A plan of TensorRT for RTX for Turing rounds to INT8 and back, and computes in FP16.
        remedy = _EMULATED_REMEDY if any(layer.kind == "correlation" for layer in products) else "edge-resnet build --int8"
        return (*found, _slowdown("no_int8", text, [x for x in products if x.precision in _FLOATS], remedy))
    found += _group("float_products", "left in {types}", [layer for layer in floats if layer.multiplies], _LEFT_REMEDY)
    found += _group("moves", "changes of type or order alone", [x for x in working if x.moves], _MOVES_REMEDY)
    # Myelin fuses no Add into an INT8 convolution with a scale per channel (docs/decisions/2026-11-real-builder.md).
    by_myelin = any(layer.kind == "correlation" for layer in int8)
    adds_remedy = "" if by_myelin else _ADDS_REMEDY
    found += _group("adds", "Adds outside a convolution", [x for x in working if x.adds == "alone"], adds_remedy)
    if by_myelin:
        wide = [layer for layer in int8 if any(tensor.dtype == "FP32" for tensor in layer.outputs)]
        found += _group("wide_outputs", "INT8 convolutions that write FP32 for another layer to read", wide, _WIDE_REMEDY)
    others = [layer for layer in floats if not layer.multiplies and layer.adds != "alone"]
    found += _group("float_others", "other work in {types}", others, "")
    return (*found, *_small_batch(listing, int8))


def _hardware(capability: str | None) -> list[Slowdown]:
    if capability is None:
        return []
    remedy = "edge-resnet build --fp16 for this GPU"
    if capability in _WITHOUT_INT8 or capability.startswith("5."):
        return [Slowdown("hardware", f"a GPU of compute capability {capability} has no INT8 instruction", remedy=remedy)]
    if capability in _WITHOUT_INT8_TENSOR_CORES:
        text = f"a GPU of compute capability {capability} has INT8 instructions, but no tensor cores for them"
        return [Slowdown("hardware", text, remedy="edge-resnet build --fp16 too, and measure which is faster")]
    return []


def _detail(listing: LayerListing) -> list[Slowdown]:
    """Report what cannot be judged, so that its absence is not read as good news."""
    if not listing.detailed:
        text = "only the layers' names are listed: their precision is unknown"
        return [Slowdown("no_detail", text, remedy="build with profiling verbosity detailed, as edge-resnet compile does")]
    unknown = [layer for layer in listing.layers if layer.works and layer.precision == UNKNOWN]
    if not unknown:
        return []
    text = f"layers without a type in the listing, as with dynamic batch sizes: {_count(unknown)}"
    return [Slowdown("no_detail", text, _names(unknown), _percent(unknown))]


def _group(cause: Cause, what: str, layers: Sequence[Layer], remedy: str) -> list[Slowdown]:
    if not layers:
        return []
    types = " and ".join(dtype for dtype in _FLOATS if any(_computes_in(layer) == dtype for layer in layers))
    return [_slowdown(cause, f"{what.format(types=types)}: {_count(layers)}", layers, remedy)]


def _small_batch(listing: LayerListing, int8: Sequence[Layer]) -> list[Slowdown]:
    """A batch of one image with nearly all of the time in INT8 already, so that only a larger batch can help."""
    percent = _percent(int8) if listing.timed_ms else None
    sizes = {tensor.shape[0] for layer in int8 for tensor in layer.inputs if tensor.shape}
    if percent is None or percent < _NEARLY_ALL_PERCENT or sizes != {1}:
        return []
    text = f"the batch is 1, and {percent:.0f} % of the time is in INT8 already"
    return [Slowdown("small_batch", text, percent=percent, remedy="use a larger batch, if images can wait for each other")]


def _computes_in(layer: Layer) -> str:
    return layer.precision.partition("→")[0]


def _slowdown(cause: Cause, text: str, layers: Sequence[Layer], remedy: str) -> Slowdown:
    return Slowdown(cause, text, _names(layers), _percent(layers), remedy)


def _names(layers: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(layer.name for layer in layers)


def _percent(layers: Sequence[Layer]) -> float | None:
    times = [layer.time.percent for layer in layers if layer.time is not None]
    return math.fsum(times) if len(times) == len(layers) > 0 else None


def _count(layers: Sequence[Layer]) -> str:
    return f"{len(layers)} layer" if len(layers) == 1 else f"{len(layers)} layers"
