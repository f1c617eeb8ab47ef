"""Two measurements beside each other: what changed, and whether it is worse than noise and tolerance allow. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_resnet.bench.record import BenchResult, read_results
from edge_resnet.compare.accuracies import evaluations
from edge_resnet.compare.accuracies import other_notes as notes_of_accuracies
from edge_resnet.compare.latencies import differences, other_notes, pairs, scenario
from edge_resnet.compare.record import Comparison, Delta, Verdict
from edge_resnet.compare.reports import reports
from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.files import kind_of
from edge_resnet.evaluate import KIND as EVALUATION
from edge_resnet.evaluate import read_evaluation
from edge_resnet.report.record import KIND as REPORT
from edge_resnet.report.record import read_report

__all__ = ["Comparison", "Delta", "Verdict", "compare_files"]


def compare_files(
    old: Path, new: Path, *, tolerance_percent: float = 5.0, tolerance_points: float = 0.5, force: bool = False
) -> Comparison:
    """Compare two files of ``bench --save``, scenario by scenario, of ``eval --save``, or two ``report.json``, row by row.

    A latency or rate is worse where it changed by more than ``tolerance_percent`` and the two intervals do not overlap; an
    accuracy where it fell by more than ``tolerance_points`` and the change, image by image, is told apart from chance. Of
    different images the two intervals must not overlap. Raises DataError for files that are not of one kind or hold nothing in
    common, ConfigError for different machines or power modes unless ``force``.
    """
    for name, value in (("percent", tolerance_percent), ("points", tolerance_points)):
        if not 0 <= value < float("inf"):
            raise ConfigError(f"a tolerance of {value} {name} makes no sense", hint="0 or more")
    kinds = tuple(kind_of(path) for path in (old, new))
    if kinds == (EVALUATION, EVALUATION):
        before, after = read_evaluation(old), read_evaluation(new)
        return _compared(evaluations(before, after, tolerance_points), notes_of_accuracies(before, after))
    if kinds == (REPORT, REPORT):
        deltas, notes, machines = reports(read_report(old), read_report(new), tolerance_percent, tolerance_points)
        if not deltas:
            raise DataError(f"no row of {old} is in {new}", hint="a row is known by its network, precision and backend")
        _check(machines, force=force)
        return _compared(deltas, [*machines, *notes])
    if kinds[0] != kinds[1] and any(kind in (EVALUATION, REPORT) for kind in kinds):
        raise DataError(
            f"{old} and {new} are of two kinds", hint="compare two of bench --save, two of eval --save, or two report.json"
        )
    return _latencies((read_results(old), old), (read_results(new), new), tolerance_percent, force=force)


def _latencies(
    old: tuple[Sequence[BenchResult], Path], new: tuple[Sequence[BenchResult], Path], tolerance: float, *, force: bool
) -> Comparison:
    common = pairs(old[0], new[0])
    if not common:
        held = [
            ", ".join(f"{result.scenario} of {result.model}, batch {result.batch}" for result in side)
            for side in (old[0], new[0])
        ]
        raise DataError(f"{old[1]} holds {held[0]}, {new[1]} {held[1]}: nothing in common", hint="run the same bench for both")
    deltas: list[Delta] = []
    notes: list[str] = []
    for before, after in common:
        machines = differences(before.device, after.device)
        _check(machines, force=force)
        notes += [*machines, *other_notes(before, after)]
        deltas += scenario(before, after, tolerance)
    return _compared(deltas, notes)


def _check(machines: Sequence[str], *, force: bool) -> None:
    if machines and not force:
        raise ConfigError(
            f"the two are of different machines: {machines[0]}",
            hint="measure both on one, or --force to compare them all the same",
        )


def _compared(deltas: Sequence[Delta], notes: Sequence[str]) -> Comparison:
    """``notes``: in order, each once."""
    return Comparison(tuple(deltas), tuple(dict.fromkeys(notes)), any(delta.verdict == "worse" for delta in deltas))
