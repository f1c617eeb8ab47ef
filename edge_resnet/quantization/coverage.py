"""What ``--calib-report`` tells: how the ranges cover the values, and whether more pictures would still move them. Pure
functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_resnet.quantization.histogram import BINS, AbsHistogram
from edge_resnet.quantization.ranges import read_amax
from edge_resnet.spec import CalibrationTable, QuantRecipe

__all__ = ["CoverageReport", "TensorCoverage", "coverage_report", "ranges_now", "render", "snapshot_counts"]

_FIRST = 32
#: Below this median change from half the pictures to all of them the ranges are called settled. A choice, not a measurement.
_STILL = 0.03


@dataclass(frozen=True)
class TensorCoverage:
    """One tensor: its range ``amax``, the ``clipped`` share of its values in percent, the int8 ``levels`` in use of 128, and
    the range after each number of pictures in ``history``."""

    tensor: str
    amax: float
    clipped: float
    levels: int
    history: tuple[float, ...]

    @property
    def moved(self) -> float:
        """Change of the range from the last number of pictures but one to all of them, as a share of the range."""
        return abs(self.history[-1] - self.history[-2]) / self.history[-1] if len(self.history) > 1 else 0.0


@dataclass(frozen=True)
class CoverageReport:
    """``counts``: numbers of pictures at which the ranges were read; ``moved``: median change over the last of them, as a
    share."""

    counts: tuple[int, ...]
    tensors: tuple[TensorCoverage, ...]
    moved: float
    enough: bool


def snapshot_counts(total: int) -> tuple[int, ...]:
    """32, 64, 128 … and all of them."""
    counts = []
    count = _FIRST
    while count < total:
        counts.append(count)
        count *= 2
    return (*counts, total)


def ranges_now(histograms: Mapping[str, AbsHistogram], recipe: QuantRecipe) -> dict[str, float]:
    """Every tensor's range by the recipe's method, as the counts stand."""
    return {name: read_amax(histogram, recipe) for name, histogram in histograms.items()}


def coverage_report(
    histograms: Mapping[str, AbsHistogram], table: CalibrationTable, snapshots: Mapping[int, Mapping[str, float]]
) -> CoverageReport:
    """Put together coverage and convergence. ``snapshots``: number of pictures → range per tensor, the last for all pictures."""
    counts = tuple(sorted(snapshots))
    tensors = tuple(
        TensorCoverage(
            name,
            table.amax[name],
            100 * _beyond(histogram, table.amax[name]),
            _levels(histogram, table.amax[name]),
            tuple(snapshots[count][name] for count in counts),
        )
        for name, histogram in histograms.items()
    )
    moved = float(np.median([tensor.moved for tensor in tensors])) if len(counts) > 1 else 0.0
    return CoverageReport(counts, tensors, moved, len(counts) > 1 and moved <= _STILL)


def render(report: CoverageReport) -> str:
    """A table for people, the tensors that still move first, and a line with the verdict."""
    width = max(len(tensor.tensor) for tensor in report.tensors) + 2
    head = "".join(f"{f'at {count}':>11}" for count in report.counts)
    lines = [f"{'tensor':<{width}}{'clipped %':>10}{'levels':>8}{head}   last change %"]
    for tensor in sorted(report.tensors, key=lambda tensor: -tensor.moved):
        history = "".join(f"{value:>11.4g}" for value in tensor.history)
        lines.append(f"{tensor.tensor:<{width}}{tensor.clipped:>10.4f}{tensor.levels:>8}{history}{100 * tensor.moved:>12.1f}")
    return "\n".join([*lines, _verdict(report)])


def _verdict(report: CoverageReport) -> str:
    if len(report.counts) < 2:
        return f"{report.counts[-1]} pictures are too few to see whether the ranges still move: use 128 or more"
    change = f"ranges moved by {100 * report.moved:.1f} % (median) from {report.counts[-2]} to {report.counts[-1]} pictures"
    return f"{change}: enough" if report.enough else f"{change}: still moving, use more"


def _beyond(histogram: AbsHistogram, amax: float) -> float:
    """Share of all values above ``amax``, by bins that lie wholly above it."""
    if histogram.limit == 0:
        return 0.0
    first = int(np.ceil(amax * BINS / histogram.limit))
    return float(histogram.counts[first:].sum()) / max(int(histogram.counts.sum()), 1)


def _levels(histogram: AbsHistogram, amax: float) -> int:
    """How many of int8's 128 levels of |x| any value falls on."""
    if histogram.limit == 0:
        return 1
    centres = (np.flatnonzero(histogram.counts) + 0.5) * histogram.limit / BINS
    return len(np.unique(np.minimum(np.rint(centres * 127 / amax), 127)))
