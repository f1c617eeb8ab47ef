"""Compares two files of measurements: what changed, and whether it regressed by more than noise and tolerance.

Measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.files import kind_of
from edge_resnet.measurement.accuracy import KIND as EVALUATION
from edge_resnet.measurement.accuracy import read_evaluation
from edge_resnet.measurement.bench.result import BenchResult, read_results
from edge_resnet.measurement.compare.deltas import (
    Comparison,
    Delta,
    accuracy_notes,
    bench_deltas,
    evaluation_deltas,
    latency_notes,
    machine_differences,
    matching_results,
    metric_delta,
    top1_delta,
    unpaired_notes,
)
from edge_resnet.measurement.report.record import KIND as REPORT
from edge_resnet.measurement.report.record import Report, Row, read_report

__all__ = ["compare_files"]


@dataclass(frozen=True)
class _BenchFile:
    path: Path
    results: Sequence[BenchResult]


@dataclass(frozen=True)
class _ReportChanges:
    """``machines``: how the machines differ. ``notes``: what else does."""

    deltas: list[Delta]
    machines: list[str]
    notes: list[str]


def compare_files(
    old: Path, new: Path, *, tolerance_percent: float = 5.0, tolerance_points: float = 0.5, force: bool = False
) -> Comparison:
    """Compare two files of ``bench --save`` by scenario, two of ``eval --save``, or two ``report.json`` by row.

    A latency or rate is worse where it changed by more than ``tolerance_percent`` and the two 95 % intervals do not overlap. An
    accuracy is worse where it fell by more than ``tolerance_points`` and, on the same images, the two differ significantly; on
    different images the two intervals must not overlap. Raises DataError for files of different kinds or without anything in
    common, and ConfigError for different machines or power modes unless ``force``.
    """
    for name, value in (("percent", tolerance_percent), ("points", tolerance_points)):
        if not 0 <= value < float("inf"):
            raise ConfigError(f"a tolerance of {value} {name} is not possible", hint="give a finite number from 0")
    kinds = tuple(kind_of(path) for path in (old, new))
    if kinds == (EVALUATION, EVALUATION):
        before, after = read_evaluation(old), read_evaluation(new)
        return _comparison(evaluation_deltas(before, after, tolerance_points), accuracy_notes(before, after))
    if kinds == (REPORT, REPORT):
        changes = _compare_reports(read_report(old), read_report(new), tolerance_percent, tolerance_points)
        if not changes.deltas:
            raise DataError(f"no row of {old} is in {new}", hint="rows are matched by network, precision and backend")
        _check_machines(changes.machines, force=force)
        return _comparison(changes.deltas, [*changes.machines, *changes.notes])
    if kinds[0] != kinds[1] and any(kind in (EVALUATION, REPORT) for kind in kinds):
        raise DataError(
            f"{old} and {new} are of two kinds",
            hint="compare two files of edge-resnet bench --save, two of edge-resnet eval --save, or two report.json",
        )
    return _compare_benches(
        _BenchFile(old, read_results(old)), _BenchFile(new, read_results(new)), tolerance_percent, force=force
    )


def _compare_benches(old: _BenchFile, new: _BenchFile, tolerance: float, *, force: bool) -> Comparison:
    pairs = matching_results(old.results, new.results)
    if not pairs:
        raise DataError(
            f"{old.path} holds {_contents(old)}, {new.path} holds {_contents(new)}: nothing in common",
            hint="run the same bench for both",
        )
    deltas: list[Delta] = []
    notes: list[str] = []
    for before, after in pairs:
        machines = machine_differences(before.device, after.device)
        _check_machines(machines, force=force)
        notes += [*machines, *latency_notes(before, after)]
        deltas += bench_deltas(before, after, tolerance)
    return _comparison(deltas, notes)


def _compare_reports(old: Report, new: Report, percent: float, points: float) -> _ReportChanges:
    """The changes of the rows that both reports have; what only one has is noted."""
    changes = _ReportChanges([], [], [])
    pairs = _matching_rows(old.rows, new.rows)
    for before, after in pairs:
        for one, other in _row_results(before, after):
            changes.machines.extend(machine_differences(one.device, other.device))
            batch = "" if one.scenario == "single-stream" else f", batch {one.batch}"
            delta = metric_delta(one, other, percent)
            changes.deltas.append(replace(delta, name=f"{before.label}, {delta.name}{batch}"))
            changes.notes.extend(f"{before.label}: {note}" for note in latency_notes(one, other))
        if before.accuracy is not None and after.accuracy is not None:
            changes.deltas.append(top1_delta(f"{before.label}, top-1", before.accuracy, after.accuracy, points))
            changes.notes.extend(f"{before.label}: {note}" for note in unpaired_notes(before.accuracy, after.accuracy))
    matched_old, matched_new = {before.label for before, _ in pairs}, {after.label for _, after in pairs}
    for name, report, matched in (("old", old, matched_old), ("new", new, matched_new)):
        alone = [row.label for row in report.rows if row.label not in matched]
        changes.notes.extend([f"only the {name} one has {', '.join(alone)}"] if alone else [])
        changes.notes.extend([f"the {name} one was interrupted"] if report.interrupted else [])
    return changes


def _comparison(deltas: Sequence[Delta], notes: Sequence[str]) -> Comparison:
    """``notes`` keep their order, each once."""
    return Comparison(tuple(deltas), tuple(dict.fromkeys(notes)), any(delta.verdict == "worse" for delta in deltas))


def _check_machines(differences: Sequence[str], *, force: bool) -> None:
    if differences and not force:
        raise ConfigError(
            f"the two were measured on different machines: {differences[0]}",
            hint="measure both on one machine, or compare them all the same with --force",
        )


def _contents(file: _BenchFile) -> str:
    return ", ".join(f"{result.scenario} of {result.model}, batch {result.batch}" for result in file.results)


def _matching_rows(old: Sequence[Row], new: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of the same network, precision and backend; where a report has several of these, those with the same label."""
    found = []
    for before in old:
        candidates = [after for after in new if _identity(after) == _identity(before)]
        if len(candidates) > 1 or sum(_identity(row) == _identity(before) for row in old) > 1:
            candidates = [after for after in candidates if after.label == before.label]
        found += [(before, after) for after in candidates]
    return found


def _identity(row: Row) -> tuple[str, str, str]:
    return row.model, row.precision, row.backend


def _row_results(old: Row, new: Row) -> list[tuple[BenchResult, BenchResult]]:
    """The single-stream results of both rows, and their offline results by batch size."""
    found = [] if old.latency is None or new.latency is None else [(old.latency, new.latency)]
    batches = {result.batch: result for result in new.batches}
    return found + [(result, batches[result.batch]) for result in old.batches if result.batch in batches]
