"""Two measurements beside each other: what changed, and whether it is worse than noise and tolerance allow. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.files import kind_of
from edge_resnet.measurement.accuracy import KIND as EVALUATION
from edge_resnet.measurement.accuracy import read_evaluation
from edge_resnet.measurement.bench.result import BenchResult, read_results
from edge_resnet.measurement.compare.deltas import (
    Comparison,
    Delta,
    Verdict,
    differences,
    evaluations,
    latency_notes,
    metric,
    pairs,
    scenario,
    top1,
    unpaired,
)
from edge_resnet.measurement.compare.deltas import accuracy_notes as notes_of_accuracies
from edge_resnet.measurement.report.record import KIND as REPORT
from edge_resnet.measurement.report.record import Report, Row, read_report

__all__ = ["Comparison", "Delta", "Verdict", "compare_files", "reports"]


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
        notes += [*machines, *latency_notes(before, after)]
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


def reports(old: Report, new: Report, percent: float, points: float) -> tuple[list[Delta], list[str], list[str]]:
    """Changes of the rows that both have, what else differs, and how their machines differ."""
    common = _common(old.rows, new.rows)
    deltas: list[Delta] = []
    notes: list[str] = []
    machines: list[str] = []
    for before, after in common:
        for one, other in _results(before, after):
            machines += differences(one.device, other.device)
            batch = "" if one.scenario == "single-stream" else f", batch {one.batch}"
            delta = metric(one, other, percent)
            deltas.append(replace(delta, name=f"{before.label}, {delta.name}{batch}"))
            notes += [f"{before.label}: {note}" for note in latency_notes(one, other)]
        if before.accuracy is not None and after.accuracy is not None:
            deltas.append(top1(f"{before.label}, top-1", before.accuracy, after.accuracy, points))
            notes += [f"{before.label}: {note}" for note in unpaired(before.accuracy, after.accuracy)]
    for place, (side, here) in enumerate((("the old one", old), ("the new one", new))):
        known = {pair[place].label for pair in common}
        alone = [row.label for row in here.rows if row.label not in known]
        notes += [f"only {side} has {', '.join(alone)}"] if alone else []
        notes += [f"{side} was interrupted"] if here.interrupted else []
    return deltas, notes, machines


def _common(old: Sequence[Row], new: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of one network, precision and backend; where a report has several of them, those that it calls alike."""
    found = []
    for before in old:
        fitting = [after for after in new if _kind(after) == _kind(before)]
        if len(fitting) > 1 or sum(_kind(row) == _kind(before) for row in old) > 1:
            fitting = [after for after in fitting if after.label == before.label]
        found += [(before, after) for after in fitting]
    return found


def _kind(row: Row) -> tuple[str, str, str]:
    return row.model, row.precision, row.backend


def _results(old: Row, new: Row) -> list[tuple[BenchResult, BenchResult]]:
    """Image after image, and offline by batch."""
    pairs = [] if old.latency is None or new.latency is None else [(old.latency, new.latency)]
    batches = {result.batch: result for result in new.batches}
    return pairs + [(result, batches[result.batch]) for result in old.batches if result.batch in batches]
