"""Whether probabilities can be trusted: of the answers with 90 %, are 90 % right? Knows no networks and no images.

The reliability diagram of Niculescu-Mizil and Caruana (2005), the expected calibration error and the temperature of Guo et al.,
*On Calibration of Modern Neural Networks* (2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import DataError
from edge_resnet.core.statistics import wilson_interval

__all__ = ["BINS", "Reliability", "ReliabilityBin", "fit_temperature", "reliability"]

#: As in Guo et al.
BINS = 15
#: The temperatures that are searched, and the number of steps, after which the interval is 10⁻⁶ of itself.
_LOWEST, _HIGHEST, _STEPS = 0.05, 20.0, 40
_GOLDEN = (math.sqrt(5) - 1) / 2
#: Rows whose powers are taken at once.
_ROWS = 4096

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers with a probability in (``low``, ``high``], in percent as all of it but the number of ``images``.

    ``confidence``: their mean probability, ``accuracy``: the share that is right with Wilson's interval ``ci95``; None if empty.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Reliability:
    """``temperature``: what the logits were divided by. ``confidence``: the mean probability of the answers, and ``accuracy``:
    the share that is right; ``ece``: expected calibration error, in points, over ``bins`` of equal width. Shares in percent."""

    temperature: float
    confidence: float
    accuracy: float
    ece: float
    bins: tuple[ReliabilityBin, ...]


def reliability(confidence: _Floats, right: _Bools, temperature: float = 1.0) -> Reliability:
    """The curve of answers with the probabilities ``confidence`` (n,) in [0, 1], n > 0, of which some are ``right`` (n,)."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for index in range(BINS):
        chosen = place == index
        count, hits = int(chosen.sum()), int(right[chosen].sum())
        mean = share = interval = None
        if count:
            mean, share = 100 * float(confidence[chosen].mean()), 100 * hits / count
            low, high = wilson_interval(hits, count)
            interval = (100 * low, 100 * high)
            error += count * abs(mean - share)
        bins.append(ReliabilityBin(100 * index / BINS, 100 * (index + 1) / BINS, count, mean, share, interval))
    count = len(confidence)
    return Reliability(temperature, 100 * float(confidence.mean()), 100 * float(right.mean()), error / count, tuple(bins))


def fit_temperature(logits: npt.NDArray[np.float32], labels: _Ints) -> float:
    """The temperature that gives ``labels`` (n,) the lowest negative log-likelihood, by ``logits`` (n, C).

    The likelihood has one minimum, since it is convex in 1/T: a golden-section search finds it. Raises DataError where it lies
    beyond 0.05 to 20: the logits then say almost nothing of the labels, or there is no error to learn from.
    """
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = _loss(logits, labels, left), _loss(logits, labels, right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = _loss(logits, labels, left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = _loss(logits, labels, right)
    found = math.exp((low + high) / 2)
    if not 1.01 * _LOWEST < found < 0.99 * _HIGHEST:
        reason = "all answers are right" if found < 1 else "the logits say nothing of the labels"
        raise DataError(
            f"the {len(labels)} labelled images give no temperature: {reason}",
            hint="use images as hard as those that the camera sees, with the network's classes",
        )
    return found


def _loss(logits: npt.NDArray[np.float32], labels: _Ints, log_temperature: float) -> float:
    """The sum of the negative log-likelihoods at a temperature."""
    total, scale = 0.0, math.exp(-log_temperature)
    for first in range(0, len(labels), _ROWS):
        rows = logits[first : first + _ROWS].astype(np.float64) * scale
        rows -= rows.max(axis=1, keepdims=True)
        own = np.take_along_axis(rows, labels[first : first + _ROWS, None], axis=1)[:, 0]
        total += float((np.log(np.exp(rows).sum(axis=1)) - own).sum())
    return total
