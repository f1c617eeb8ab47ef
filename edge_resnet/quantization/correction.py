"""What the recipe corrects beyond ranges: nothing, biases, or weights, ranges and biases. Does not know about files or labels.

``learned`` is three steps, each cheap because of the one before it: channels are evened out, weights are rounded so that each
layer's output changes least, then ranges and biases are learned through the whole network in a few passes. A part of the images
is held out of the last two: it judges whether learning helped there, and how often INT8 then gives FP32's class.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import Corrections
from edge_resnet.compiler.graph.qdq import quantize
from edge_resnet.core.records import Progress
from edge_resnet.images.imagecache import CachedImages, ImageSubset
from edge_resnet.quantization.biases import correct_biases
from edge_resnet.quantization.learn import Teacher, learn
from edge_resnet.quantization.rounding import round_layers
from edge_resnet.quantization.simulate import Logits, centred_error, simulate

__all__ = ["Corrected", "HeldOut", "correct", "held_out"]

_log = logging.getLogger(__name__)

#: One image of so many is held out, at most so many, and none of a set with fewer than the last: it would miss them.
_EVERY, _MAX_HELD_OUT, _MIN_IMAGES = 8, 64, 32
_BATCH = 8


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Images that neither rounding nor learning saw, and FP32's ``logits`` of them, (N, classes)."""

    images: CachedImages
    logits: Logits


@dataclass(frozen=True, eq=False)
class Corrected:
    """``corrections`` of the graph, None for none. ``amax``: ranges that were learned. ``held_out``: None if all were used."""

    corrections: Corrections | None
    amax: Mapping[str, float] = field(default_factory=dict)
    held_out: HeldOut | None = None


def correct(
    graph: onnx.ModelProto,
    table: CalibrationTable,
    images: CachedImages,
    logits: Logits,
    *,
    progress: Progress | None = None,
) -> Corrected:
    """Correct by ``table.recipe``.

    ``graph``: FP32, equalized if the recipe learns; ``table``: its ranges; ``logits``: its answers to ``images``, (N, classes).
    """
    recipe = table.recipe
    if recipe.correction == "bias":
        seen, judges = held_out(images, logits)
        keep = frozenset(recipe.keep_high_precision)
        return Corrected(correct_biases(graph, table.amax, seen, keep, progress=progress), {}, judges)
    if recipe.correction == "learned":
        return _learned(graph, table, images, logits, progress)
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
    graph: onnx.ModelProto, table: CalibrationTable, images: CachedImages, logits: Logits, progress: Progress | None
) -> Corrected:
    """Round, then learn; what was learned is kept if the logits of the held-out images come closer to FP32's."""
    seen, judges = held_out(images, logits)
    rounded = round_layers(graph, table.amax, seen, table.recipe, progress=progress)
    learned = learn(graph, table.amax, rounded, Teacher(seen, logits[seen.positions]), table.recipe, progress=progress)
    _log.info("learned: loss %.5f in the first pass, %.5f in the last", learned.first_loss, learned.last_loss)
    kept = Corrected(learned.corrections, learned.amax, judges)
    if judges is None:
        return kept
    before, after = (
        _error(graph, replace(table, amax={**table.amax, **amax}), corrections, judges)
        for corrections, amax in ((rounded, {}), (learned.corrections, learned.amax))
    )
    _log.info("error of the logits on %d held-out images: %.5f rounded, %.5f learned", len(judges.logits), before, after)
    if after < before:
        return kept
    _log.warning("learning did not help on %d held-out images: the ranges are those that were measured", len(judges.logits))
    return Corrected(rounded, {}, judges)


def _error(graph: onnx.ModelProto, table: CalibrationTable, corrections: Corrections, judges: HeldOut) -> float:
    return centred_error(simulate(quantize(graph, table, "tensorrt", corrections), judges.images.batches(_BATCH)), judges.logits)
