"""Coverage and convergence of ranges: how much of the values they cover, and whether more images would still change them.

Pure functions; does not know about graphs and images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.core.records import QuantRecipe
from edge_resnet.quantization.histogram import BINS, AbsHistogram, point, share_above
from edge_resnet.quantization.ranges import read_amax

__all__ = ["CoverageReport", "TensorCoverage", "coverage_report", "ranges_now", "render", "snapshot_counts"]

_FIRST = 32
#: All images must be half as many again as the step before them: from 512 to 520 any range would seem stable.
_MIN_STEP = 1.5
#: More images do not help if the last step changes the median tensor's range by at most the first of these, and nine of ten by at
#: most the second. docs/decisions/2026-11-warnings.md has the measurements on four networks.
_STABLE, _STABLE_P90 = 0.03, 0.10


@dataclass(frozen=True)
class TensorCoverage:
    """Coverage of one tensor.

    ``amax``: its range. ``clipped``: share of its values beyond the range, in percent. ``levels``: of int8's 128 levels of |x|,
    those in use. ``steps``: of the 127 steps, those that 99 % of its values reach. ``history``: its range after each number of
    images.
    """

    tensor: str
    amax: float
    clipped: float
    levels: int
    steps: float
    history: tuple[float, ...]

    @property
    def moved(self) -> float:
        """Change of the range in the last step, to all images, as a share of the range."""
        return abs(self.history[-1] - self.history[-2]) / self.history[-1] if len(self.history) > 1 else 0.0


@dataclass(frozen=True)
class CoverageReport:
    """Coverage of all tensors.

    ``counts``: the numbers of images at which the ranges were read. ``moved``: median change of a range in the last step,
    ``most``: its 90th percentile, both as shares of the range. ``enough``: whether more images would not help.
    """

    counts: tuple[int, ...]
    tensors: tuple[TensorCoverage, ...]
    moved: float
    most: float
    enough: bool


def snapshot_counts(total: int) -> tuple[int, ...]:
    """32, 64, 128 … and ``total``, which is at least half as many again as the number before."""
    counts = []
    count = _FIRST
    while count * _MIN_STEP <= total:
        counts.append(count)
        count *= 2
    return (*counts, total)


def ranges_now(histograms: Mapping[str, AbsHistogram], recipe: QuantRecipe) -> dict[str, float]:
    """Every tensor's range by the recipe's method, from the counts so far."""
    return {name: read_amax(histogram, recipe) for name, histogram in histograms.items()}


def coverage_report(
    histograms: Mapping[str, AbsHistogram], table: CalibrationTable, snapshots: Mapping[int, Mapping[str, float]]
) -> CoverageReport:
    """Combine coverage and convergence. ``snapshots``: number of images → range per tensor, the last for all images."""
    counts = tuple(sorted(snapshots))
    tensors = tuple(
        TensorCoverage(
            name,
            table.amax[name],
            100 * share_above(histogram, table.amax[name]),
            _levels(histogram, table.amax[name]),
            min(127 * point(histogram, 0.99) / table.amax[name], 127.0),
            tuple(snapshots[count][name] for count in counts),
        )
        for name, histogram in histograms.items()
    )
    moved, most = (float(value) for value in np.quantile([tensor.moved for tensor in tensors] or [0.0], (0.5, 0.9)))
    stable = moved <= _STABLE and most <= _STABLE_P90
    return CoverageReport(counts, tensors, moved, most, len(counts) > 1 and stable)


def render(report: CoverageReport) -> str:
    """A text table, the tensors that still change first, and a line with the verdict."""
    width = max([len(tensor.tensor) for tensor in report.tensors] + [6]) + 2
    head = "".join(f"{f'at {count}':>11}" for count in report.counts)
    lines = [f"{'tensor':<{width}}{'clipped %':>10}{'levels':>8}{'99 % in':>9}{head}{'change %':>12}"]
    for tensor in sorted(report.tensors, key=lambda tensor: -tensor.moved):
        history = "".join(f"{value:>11.4g}" for value in tensor.history)
        figures = f"{tensor.clipped:>10.4f}{tensor.levels:>8}{tensor.steps:>9.0f}{history}{100 * tensor.moved:>12.1f}"
        lines.append(f"{tensor.tensor:<{width}}{figures}")
    return "\n".join([*lines, _verdict(report)])


def _verdict(report: CoverageReport) -> str:
    if len(report.counts) < 2:
        return f"{max(report.counts, default=0)} images are too few to see whether the ranges still change: use 128 or more"
    change = f"ranges changed by {100 * report.moved:.1f} % (median; nine of ten by {100 * report.most:.1f} % or less)"
    step = f"from {report.counts[-2]} to {report.counts[-1]} images"
    remedy = "enough" if report.enough else "still changing, use more, or a method that depends less on the largest values"
    return f"{change} {step}: {remedy}"


def _levels(histogram: AbsHistogram, amax: float) -> int:
    """How many of int8's 128 levels of |x| are in use."""
    if histogram.limit == 0:
        return 1
    centres = (np.flatnonzero(histogram.counts) + 0.5) * histogram.limit / BINS
    return len(np.unique(np.minimum(np.rint(centres * 127 / amax), 127)))
