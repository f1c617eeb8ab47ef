"""Which images a network classifies correctly, by averaging scheme, and what follows: error rates, paired differences, a table.

Does not know the schemes, except as functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.core.statistics import PairedDifference, paired_difference, wilson_interval
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.studies.paper.networks import LoadedNetwork, Probabilities, probabilities
from edge_resnet.studies.paper.result import Cell, Column, Table

__all__ = [
    "ErrorRate",
    "Hits",
    "ImageViews",
    "Scheme",
    "Tally",
    "count_hits",
    "difference_record",
    "difference_text",
    "error_difference",
    "error_rate",
    "errors_table",
    "hits_of",
    "with_significance",
]

#: (N, 2) bool: whether the label is the top-1 class, and whether it is among the top 5.
Hits: TypeAlias = npt.NDArray[np.bool_]
#: An averaging scheme: the probabilities of an image's views, (views, classes) → (classes,).
Scheme: TypeAlias = Callable[[Probabilities], Probabilities]


@dataclass(frozen=True)
class ErrorRate:
    """Errors on ``images`` images in percent. ``top1_ci95``: Wilson's interval."""

    images: int
    top1: float
    top5: float
    top1_ci95: tuple[float, float]


@dataclass(frozen=True)
class ImageViews:
    """One image: its views in groups of equal size, each (n, H, W, 3) uint8 RGB, and its class."""

    views: tuple[ImageArray, ...]
    label: int


@dataclass(frozen=True, eq=False)
class Tally:
    """One network's hits by scheme. The others are compared with the first."""

    name: str
    hits: Mapping[str, Hits]
    interrupted: bool

    def rates(self) -> dict[str, ErrorRate]:
        """The error rate of every scheme."""
        return {scheme: error_rate(hits) for scheme, hits in self.hits.items()}

    def differences(self) -> dict[str, PairedDifference]:
        """The difference of every other scheme from the first."""
        first, *others = self.hits
        return {scheme: error_difference(self.hits[scheme][:, 0], self.hits[first][:, 0]) for scheme in others}


def count_hits(
    network: LoadedNetwork, images: Iterable[ImageViews], schemes: Mapping[str, Scheme], spec: Preprocess, progress: Progress
) -> Tally:
    """Classify every image with every scheme. On Ctrl-C returns the images so far, or raises KeyboardInterrupt if there are none.

    ``progress`` is called for every image with 0 as ``total``: the caller knows how many there are.
    """
    hits: dict[str, list[Hits]] = {scheme: [] for scheme in schemes}
    interrupted = False
    try:
        for done, image in enumerate(images, 1):
            by_view = np.concatenate([probabilities(network.module, views, spec) for views in image.views])
            label = np.array([image.label])
            found = [hits_of(scheme(by_view)[None], label) for scheme in schemes.values()]
            for rows, row in zip(hits.values(), found, strict=True):
                rows.append(row)
            progress(network.name, done, 0)
    except KeyboardInterrupt:
        interrupted = True
    if not hits or not next(iter(hits.values())):
        raise KeyboardInterrupt
    return Tally(network.name, {scheme: np.concatenate(rows) for scheme, rows in hits.items()}, interrupted)


def hits_of(predicted: Probabilities, labels: npt.NDArray[np.int64]) -> Hits:
    """Whether ``predicted`` (N, classes) ranks ``labels`` (N,) first, and among the first five; lower classes win ties."""
    order = np.argsort(-predicted, axis=1, kind="stable")[:, :5] == labels[:, None]
    return np.stack([order[:, 0], order.any(axis=1)], axis=1)


def error_rate(hits: Hits) -> ErrorRate:
    """The error rate of at least one image."""
    count = len(hits)
    wrong = count - hits.sum(axis=0)
    low, high = wilson_interval(int(wrong[0]), count)
    return ErrorRate(count, 100 * float(wrong[0]) / count, 100 * float(wrong[1]) / count, (100 * low, 100 * high))


def error_difference(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> PairedDifference:
    """Error of ``one`` minus error of ``other`` in points, from which of the same images each gets right, both (N,).

    A negative difference means that ``one`` is better.
    """
    only_one = int(np.sum(one & ~other))
    only_other = int(np.sum(other & ~one))
    return paired_difference(only_other, only_one, len(one))


def difference_text(found: PairedDifference) -> str:
    """For a table: ``-1.80 (-3.40 to -0.20)``."""
    return f"{found.points:+.2f} ({found.ci95[0]:+.2f} to {found.ci95[1]:+.2f})"


def with_significance(found: PairedDifference) -> str:
    """For a sentence: ``-1.80 points (95 % interval -3.40 to -0.20, McNemar p = 0.027, significant)``."""
    verdict = "significant" if found.significant else "no significant difference"
    low, high = found.ci95
    return f"{found.points:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}, McNemar p = {found.p:.2g}, {verdict})"


def difference_record(found: PairedDifference) -> dict[str, float | tuple[float, float]]:
    """The difference for JSON."""
    return {"points": found.points, "ci95": found.ci95, "p": found.p}


def errors_table(caption: str, tallies: Sequence[Tally], paper: Callable[[str, str], str | None]) -> Table:
    """A row per network and scheme. ``paper`` gives the paper's errors for (network, scheme)."""
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
            against = difference_text(differences[scheme]) if scheme in differences else None
            interval = f"{rate.top1_ci95[0]:.2f} to {rate.top1_ci95[1]:.2f}"
            rows.append((tally.name, scheme, rate.top1, interval, rate.top5, against, paper(tally.name, scheme), rate.images))
    return Table(caption, columns, tuple(rows))
