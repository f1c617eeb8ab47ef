"""Hits of several ways to look at an image, counted image by image on the same images. Knows no way but by its function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.core.statistics import is_significant, paired_difference, wilson_interval
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.studies.paper.networks import Member, Probabilities, probabilities
from edge_resnet.studies.paper.result import Cell, Column, Table

__all__ = [
    "Difference",
    "ErrorRate",
    "Hits",
    "Scheme",
    "Tally",
    "View",
    "count_hits",
    "difference",
    "error_rate",
    "errors_table",
    "hits_of",
]


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
    def significant(self) -> bool:
        """Whether the two differ significantly."""
        return is_significant(self.p)


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
    found = paired_difference(int(np.sum(other & ~one)), int(np.sum(one & ~other)), len(one))
    return Difference(found.points, found.ci95, found.p)


#: Probabilities of an image's views, (views, classes), → (classes,).
Scheme: TypeAlias = Callable[[Probabilities], Probabilities]


@dataclass(frozen=True)
class View:
    """One image: its views in groups of one size, each (n, H, W, 3) uint8 RGB, and its class."""

    views: tuple[ImageArray, ...]
    label: int


@dataclass(frozen=True, eq=False)
class Tally:
    """One network's hits by scheme, the first of which is what the others are compared with."""

    name: str
    hits: Mapping[str, Hits]
    interrupted: bool

    def rates(self) -> dict[str, ErrorRate]:
        """Of every scheme."""
        return {scheme: error_rate(hits) for scheme, hits in self.hits.items()}

    def differences(self) -> dict[str, Difference]:
        """Of every scheme but the first from the first."""
        first, *others = self.hits
        return {scheme: difference(self.hits[scheme][:, 0], self.hits[first][:, 0]) for scheme in others}


def count_hits(
    member: Member, looks: Iterable[View], schemes: Mapping[str, Scheme], spec: Preprocess, progress: Progress
) -> Tally:
    """Answer every look in every scheme's way; Ctrl-C ends it with the images so far, if there is one.

    ``progress`` is called for every image with their number so far as ``done`` and 0 as ``total``: the caller knows how many
    there are.
    """
    hits: dict[str, list[Hits]] = {scheme: [] for scheme in schemes}
    done, interrupted = 0, False
    try:
        for done, look in enumerate(looks, 1):
            answers = np.concatenate([probabilities(member.network, views, spec) for views in look.views])
            label = np.array([look.label])
            found = [hits_of(scheme(answers)[None], label) for scheme in schemes.values()]
            for rows, row in zip(hits.values(), found, strict=True):
                rows.append(row)
            progress(member.name, done, 0)
    except KeyboardInterrupt:
        interrupted = True
    if not hits or not next(iter(hits.values())):
        raise KeyboardInterrupt
    return Tally(member.name, {scheme: np.concatenate(rows) for scheme, rows in hits.items()}, interrupted)


def errors_table(caption: str, tallies: Sequence[Tally], paper: Callable[[str, str], str | None]) -> Table:
    """A row per network and scheme; ``paper``: what the paper has for (network, scheme)."""
    columns = (
        Column("network", "network"),
        Column("tested on", "scheme"),
        Column("top-1 error, %", "top1_error", 2),
        Column("95 % interval", "top1_error_ci95"),
        Column("top-5 error, %", "top5_error", 2),
        Column("top-1 against the first, points", "difference"),
        Column("the paper, top-1 / top-5", "paper"),
        Column("images", "images", 0),
    )
    rows: list[tuple[Cell, ...]] = []
    for tally in tallies:
        differences = tally.differences()
        for scheme, rate in tally.rates().items():
            apart = differences[scheme].text if scheme in differences else None
            interval = f"{rate.top1_ci95[0]:.2f} to {rate.top1_ci95[1]:.2f}"
            rows.append((tally.name, scheme, rate.top1, interval, rate.top5, apart, paper(tally.name, scheme), rate.images))
    return Table(caption, columns, tuple(rows))
