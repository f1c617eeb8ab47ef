"""What the recipe corrects beyond ranges: nothing, biases, or weights, ranges and biases. Does not know about files or labels.

``learned`` is two steps: ranges, channel factors and biases are learned through the whole network in a few passes, then weights
are rounded so that each layer's output changes least. A part of the images is held out of both: it judges whether learning helped
there, and how often INT8 then gives FP32's class.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import torch

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import Corrections, Floats, apply
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.images.imagecache import CachedImages, ImageSubset
from edge_resnet.quantization.biases import correct_biases
from edge_resnet.quantization.covariance import QuantizedGraph
from edge_resnet.quantization.learn import Teacher, learn
from edge_resnet.quantization.rounding import round_layers
from edge_resnet.quantization.simulate import Logits

__all__ = ["Corrected", "HeldOut", "correct", "held_out"]

_log = logging.getLogger(__name__)

#: One image of so many is held out, at most so many, and none of a set with fewer than the last: it would miss them.
_EVERY, _MAX_HELD_OUT, _MIN_IMAGES = 8, 64, 32


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Images that neither rounding nor learning saw, and FP32's ``logits`` of them, (N, classes)."""

    images: CachedImages
    logits: Logits


@dataclass(frozen=True, eq=False)
class Corrected:
    """``corrections`` of the graph, None for none. ``amax``: ranges that were learned. ``held_out``: None if all were used.

    ``evened``: weights and biases that scale the graph's channels and do not change its function; ``corrections`` and ``amax``
    are those of the graph with them.
    """

    corrections: Corrections | None
    amax: Mapping[str, float] = field(default_factory=dict)
    held_out: HeldOut | None = None
    evened: Corrections = field(default_factory=Corrections)


def correct(
    graph: onnx.ModelProto,
    table: CalibrationTable,
    images: CachedImages,
    logits: Logits,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Corrected:
    """Correct by ``table.recipe``.

    ``graph``: FP32, equalized; ``table``: its ranges; ``logits``: its answers to ``images``, (N, classes). ``device``: where to
    learn, the processor by default.
    """
    recipe = table.recipe
    if recipe.correction == "bias":
        seen, judges = held_out(images, logits)
        keep = frozenset(recipe.keep_high_precision)
        return Corrected(correct_biases(graph, table.amax, seen, keep, progress=progress), {}, judges)
    if recipe.correction == "learned":
        quantized = QuantizedGraph(graph, table.amax, frozenset(recipe.keep_high_precision))
        return _learned(quantized, Teacher(images, logits), recipe, device, progress)
    return Corrected(None)


def held_out(images: CachedImages, logits: Logits) -> tuple[ImageSubset, HeldOut | None]:
    """The images to learn from, and those held out; None for a set too small to do without them."""
    everything = np.arange(len(images))
    if len(images) < _MIN_IMAGES:
        return ImageSubset(images, everything), None
    count = min(len(images) // _EVERY, _MAX_HELD_OUT)
    chosen = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    return ImageSubset(images, np.setdiff1d(everything, chosen)), HeldOut(ImageSubset(images, chosen), logits[chosen])


def _learned(
    graph: QuantizedGraph, everything: Teacher, recipe: QuantRecipe, device: torch.device | None, progress: Progress | None
) -> Corrected:
    """Learn, then round; what was learned is kept if the logits of most held-out images come closer to FP32's."""
    seen, judges = held_out(everything.images, everything.logits)
    teacher = Teacher(seen, everything.logits[seen.positions])
    unseen = None if judges is None else Teacher(judges.images, judges.logits)
    learned = learn(graph, teacher, recipe, unseen, device=device, progress=progress)
    _log.info("learned: loss %.5f in the first pass, %.5f in the last", learned.first_loss, learned.last_loss)
    if learned.before is not None and learned.after is not None and not _helped(learned.before, learned.after):
        _log.warning("learning did not help on held-out images: the ranges are those that were measured")
        return Corrected(round_layers(graph, seen, progress=progress), {}, judges)
    evened = apply(apply(graph.model, learned.evened), Corrections(biases=learned.biases))
    rounded = round_layers(replace(graph, model=evened, amax=learned.amax), seen, progress=progress)
    return Corrected(replace(rounded, biases={**learned.biases, **rounded.biases}), learned.amax, judges, learned.evened)


def _helped(before: Floats, after: Floats) -> bool:
    """Whether the errors of held-out images fell, in the geometric mean: the sum is that of the few worst."""
    tiny = np.finfo(np.float32).tiny
    ratio = float(np.exp(np.mean(np.log(np.maximum(after, tiny)) - np.log(np.maximum(before, tiny)))))
    _log.info(
        "error of the logits of %d held-out images: %.5f before, %.5f after, %.2f times that before in the geometric mean",
        len(before), before.mean(), after.mean(), ratio,
    )  # fmt: skip
    return ratio < 1
