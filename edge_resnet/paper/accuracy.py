"""Errors of several ways to answer, measured on the same images, and their paired differences. Knows no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.statistics import mcnemar_exact, paired_drop_interval, wilson_interval
from edge_resnet.paper.networks import Probabilities

__all__ = ["Difference", "ErrorRate", "Hits", "difference", "error_rate", "hits_of"]

#: (N, 2) bool: whether the label is the best class, and whether it is among the best five.
Hits: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ErrorRate:
    """Of ``images``, in percent; ``top1_ci95``: Wilson's interval."""

    images: int
    top1: float
    top5: float
    top1_ci95: tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Error of the one minus that of the other on the same images, in points; below zero the one is better.

    ``ci95``: Tango's paired interval. ``p``: exact two-sided p-value of McNemar's test that they err equally often.
    """

    points: float
    ci95: tuple[float, float]
    p: float

    @property
    def text(self) -> str:
        """For a table: ``-1.80 (-3.40 to -0.20)``."""
        return f"{self.points:+.2f} ({self.ci95[0]:+.2f} to {self.ci95[1]:+.2f})"

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.ci95[0] > 0 or self.ci95[1] < 0


def hits_of(answers: Probabilities, labels: npt.NDArray[np.int64]) -> Hits:
    """Where ``answers`` (N, classes) put ``labels`` (N,) first, and among the first five; ties go to the lower class."""
    order = np.argsort(-answers, axis=1, kind="stable")[:, :5] == labels[:, None]
    return np.stack([order[:, 0], order.any(axis=1)], axis=1)


def error_rate(hits: Hits) -> ErrorRate:
    """Sum up one way to answer; needs at least one image."""
    count = len(hits)
    wrong = count - hits.sum(axis=0)
    low, high = wilson_interval(int(wrong[0]), count)
    return ErrorRate(count, 100 * float(wrong[0]) / count, 100 * float(wrong[1]) / count, (100 * low, 100 * high))


def difference(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> Difference:
    """How the error of ``one`` differs from that of ``other``, both (N,): which of the same images each gets right."""
    only_one = int(np.sum(one & ~other))
    only_other = int(np.sum(other & ~one))
    low, high = paired_drop_interval(only_other, only_one, len(one))
    return Difference(100 * (only_other - only_one) / len(one), (100 * low, 100 * high), mcnemar_exact(only_one, only_other))
