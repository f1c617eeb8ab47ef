"""Warnings that save a week: layers and calibration sets that post-training quantization does not survive. One line each, never
an error. Knows nothing of files, and runs no network.

Thresholds lie between networks and sets that quantize well and ones broken on purpose; the figures are in docs/decisions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edge_resnet.errors import DataError
from edge_resnet.imageset import ImageSet
from edge_resnet.quantization.histogram import BINS, AbsHistogram
from edge_resnet.spec import CalibrationTable
from edge_resnet.statistics import wilson_interval

__all__ = ["Risk", "check_answers", "check_set", "check_unlike", "risk_warning", "risky_layers"]

#: Share of a tensor's nonzero values that int8 rounds to zero: 0.05 on CIFAR ResNet-20 and 0.25 on ResNet-50, 0.36 where
#: agreement with FP32 has fallen to 91 %, above 0.8 where it is lost.
_MOST_LOST = 0.35
#: Largest over median range of a layer's output channels: 3.6 and 13.5 on those two, 60 and 195 where broken.
_MOST_SPREAD = 30.0
#: Mean over the tensors of |log(99.9 % point of one set / of the other)|: at most 0.025 between sets of the same kind, 0.04 to
#: 0.08 for colour-swapped or grey pictures, 0.14 and more for half the brightness, another kind of picture, or noise.
_MOST_UNLIKE = 0.10
_FEW, _FEWER = 128, 32
#: Pictures looked at for duplicates and flat ones.
_LOOKED_AT = 64
#: Share of all answers that one class may have before a mixed set is doubted.
_MOST_ONE_SIDED = 0.9


@dataclass(frozen=True)
class Risk:
    """A layer that plain ranges may not serve: ``node`` or tensor, a ``value`` that is too large, and ``why`` in plain words."""

    node: str
    value: float
    why: str


def risky_layers(model: onnx.ModelProto, histograms: Mapping[str, AbsHistogram], table: CalibrationTable) -> list[Risk]:
    """Activations whose tails leave few of int8's levels to the rest, and weights whose channels lie far apart; the worst first.

    ``model``: the graph that the histograms were counted on.
    """
    found = [
        Risk(name, lost / _MOST_LOST, f"{100 * lost:.0f} % of its nonzero values are rounded to zero")
        for name, histogram in histograms.items()
        if name in table.amax and (lost := _lost(histogram, table.amax[name])) > _MOST_LOST
    ]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in constants:
            spread = _spread(numpy_helper.to_array(constants[node.input[1]]))
            if spread > _MOST_SPREAD:
                why = f"its largest output channel is {spread:.0f} times the median one"
                found.append(Risk(node.name, spread / _MOST_SPREAD, why))
    return sorted(found, key=lambda risk: -risk.value)


def risk_warning(risks: list[Risk], shown: int = 3) -> list[str]:
    """One line that names the worst layers; none where there are none."""
    if not risks:
        return []
    worst = "; ".join(f"{risk.node}: {risk.why}" for risk in risks[:shown])
    more = f" and {len(risks) - shown} more" if len(risks) > shown else ""
    return [f"risky under plain ranges: {worst}{more}; check with eval --simulate-int8, or gate with --max-drop"]


def check_set(images: ImageSet, classes: int) -> list[str]:
    """A set that is small, of one class or few, repeated, or flat; looks at up to 64 pictures."""
    found = []
    if len(images) < _FEW:
        how = "far too few" if len(images) < _FEWER else "few"
        found.append(f"{len(images)} calibration pictures are {how}: ranges and what is learned need {_FEW} to 512")
    if images.labels is not None and len(images) > 1:
        present = len(set(images.labels))
        if present == 1:
            found.append("all calibration pictures are of one class: mix them as they come at run time")
        elif present < min(classes, len(images)) / 4:
            found.append(f"the calibration pictures are of {present} of {classes} classes: mix more of them")
    hashes, flat = Counter[bytes](), 0
    looked_at = range(0, len(images), max(1, -(-len(images) // _LOOKED_AT)))
    for index in looked_at:
        try:
            picture = images.load(index)
        except DataError:
            continue  # the pass itself counts and names unreadable pictures
        hashes[picture.tobytes()] += 1
        flat += bool(picture.std() < 2)
    seen = sum(hashes.values())
    if seen > 1 and len(hashes) <= 0.75 * seen:
        found.append(f"{seen - len(hashes)} of {seen} calibration pictures looked at repeat another: they add nothing")
    if seen and flat > 0.25 * seen:
        found.append(f"{flat} of {seen} calibration pictures looked at are of nearly one colour: is the lens covered?")
    return found


def check_answers(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64] | None) -> list[str]:
    """What FP32 itself says of the calibration pictures: near chance, or one class for all, means a wrong normalisation or crop.

    ``logits``: (N, classes). ``labels``: (N,), None where they are not known.
    """
    count, classes = logits.shape
    best = logits.argmax(axis=1)
    if labels is not None:
        hits = int((best == labels).sum())
        chance = 1 / classes
        if wilson_interval(hits, count)[0] < 2 * chance and hits < 0.5 * count:
            seen = f"FP32 itself names {hits} of {count} calibration pictures, hardly more than chance"
            return [f"{seen}: are mean, std, the labels' order and the weights this network's?"]
    share = float(np.bincount(best, minlength=classes).max()) / count
    several = labels is None or len(set(labels.tolist())) > 1
    if count >= _FEWER and share > _MOST_ONE_SIDED and several:
        return [f"FP32 gives {100 * share:.0f} % of the calibration pictures one class: are mean and std this network's?"]
    return []


def check_unlike(calibration: Mapping[str, AbsHistogram], validation: Mapping[str, AbsHistogram]) -> list[str]:
    """Calibration pictures unlike the validation ones, by the mean distance of the tensors' 99.9 % points."""
    shared = [name for name in calibration if name in validation and calibration[name].amax > 0 and validation[name].amax > 0]
    if not shared:
        return []
    ratios = [_point(validation[name], 0.999) / _point(calibration[name], 0.999) for name in shared]
    distance = float(np.mean(np.abs(np.log(ratios))))
    if distance <= _MOST_UNLIKE:
        return []
    how = f"{'wider' if float(np.median(ratios)) > 1 else 'narrower'} by a factor of {math.exp(distance):.2f} on average"
    remedy = "calibrate on pictures of the same camera, light and crop"
    return [f"the validation pictures are unlike the calibration ones (activations are {how}): {remedy}"]


def _lost(histogram: AbsHistogram, amax: float) -> float:
    """Share of the nonzero values below half a step; the first bin, where ReLU's zeros lie, is not counted."""
    nonzero = histogram.counts[1:]
    total = int(nonzero.sum())
    if total == 0:
        return 0.0
    below = int(min(max(amax / 254 * BINS / histogram.limit - 1, 0), BINS - 1))
    return float(nonzero[:below].sum()) / total


def _spread(weight: npt.NDArray[np.float32]) -> float:
    ranges = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    alive = ranges[ranges > 1e-6 * max(float(ranges.max()), 1e-30)]
    return float(alive.max() / np.median(alive)) if len(alive) else 1.0


def _point(histogram: AbsHistogram, share: float) -> float:
    """The upper edge of the bin below which ``share`` of the values lie."""
    inside = int(np.searchsorted(np.cumsum(histogram.counts), share * int(histogram.counts.sum())))
    return (min(inside, BINS - 1) + 1) * histogram.limit / BINS
