"""Rows from result files: those of ``bench --save``, ``eval --save`` and other reports. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_resnet.core.files import kind_of
from edge_resnet.measurement.accuracy import KIND as EVALUATION
from edge_resnet.measurement.accuracy import Evaluation, read_evaluation
from edge_resnet.measurement.bench.result import BenchResult, read_results
from edge_resnet.measurement.report.record import KIND as REPORT
from edge_resnet.measurement.report.record import MissingResult, Pair, Report, Row, Setup, read_report

__all__ = ["LoadedResults", "from_files"]


@dataclass(frozen=True)
class LoadedResults:
    """The ``rows``, ``pairs`` and ``setups`` in result files. ``missing``: their missing results, and what cannot be shown."""

    rows: tuple[Row, ...] = ()
    pairs: tuple[Pair, ...] = ()
    missing: tuple[MissingResult, ...] = ()
    setups: tuple[Setup, ...] = ()


def from_files(paths: Sequence[Path]) -> LoadedResults:
    """Read every file. Raises DataError if one is truncated, of a newer schema, or not a result file."""
    kinds = {path: kind_of(path) for path in paths}
    reports = [_report(path) for path, kind in kinds.items() if kind == REPORT]
    machines = {_machine(row) for report in reports for row in report.rows}
    reports = [_located(report) for report in reports] if len(machines) > 1 else reports
    rows = [row for report in reports for row in report.rows]
    missing = [one for report in reports for one in report.holes]
    for path, kind in kinds.items():
        if kind not in (REPORT, EVALUATION):
            for result in read_results(path):
                _add(rows, missing, result)
    for path, kind in kinds.items():
        if kind == EVALUATION:
            _attach(rows, missing, path, read_evaluation(path))
    pairs = tuple(pair for report in reports for pair in report.pairs)
    return LoadedResults(tuple(rows), pairs, tuple(missing), tuple(report.setup for report in reports))


def _report(path: Path) -> Report:
    """The report, with the file's path in its missing results."""
    report = read_report(path)
    return replace(report, holes=tuple(replace(one, what=f"{one.what} ({path})") for one in report.holes))


def _located(report: Report) -> Report:
    """The report with the machine in every label, because rows of two machines have the same labels."""
    names = {row.label: f"{row.label}, {_machine(row)}" for row in report.rows}
    rows = tuple(replace(row, label=names[row.label]) for row in report.rows)
    pairs = tuple(
        replace(pair, reference=names.get(pair.reference, pair.reference), row=names.get(pair.row, pair.row))
        for pair in report.pairs
    )
    return replace(report, rows=rows, pairs=pairs)


def _machine(row: Row) -> str:
    """The name of the board, else of the GPU, else of the processor."""
    result = next(iter((*([row.latency] if row.latency else []), *row.batches)), None)
    device = None if result is None else result.device
    return "unknown machine" if device is None else device.board or device.gpu or device.cpu


def _add(rows: list[Row], missing: list[MissingResult], result: BenchResult) -> None:
    """Add a latency to the row of the same artifact on the same machine, or as a new row."""
    if result.scenario == "multi-stream":
        missing.append(
            MissingResult(f"{result.model} {result.precision} multi-stream", "a report shows only single-stream and offline")
        )
        return
    for index, row in enumerate(rows):
        first = row.latency or row.batches[0] if row.latency or row.batches else None
        if first is not None and _kind(first) == _kind(result):
            if result.scenario == "offline":
                rows[index] = replace(row, batches=(*row.batches, result))
                return
            if row.latency is None:
                rows[index] = replace(row, latency=result)
                return
    label = f"{result.model} {result.precision} {result.backend}"
    single = result.scenario == "single-stream"
    rows.append(
        Row(label, result.model, result.precision, result.backend, result if single else None, () if single else (result,))
    )


def _kind(result: BenchResult) -> tuple[str, ...]:
    return result.artifact_digest, result.backend, result.device.cpu, str(result.device.gpu), str(result.device.power_mode)


def _attach(rows: list[Row], missing: list[MissingResult], path: Path, found: Evaluation) -> None:
    """Add an accuracy to the row of its artifact on its backend."""
    for index, row in enumerate(rows):
        native = row.backend == found.backend and not found.simulated
        if native and row.accuracy is None and found.artifact_digest in _artifacts(row):
            rows[index] = replace(row, accuracy=found.accuracy)
            return
    where = f"{found.model} {found.precision}{' simulated' if found.simulated else ''} on {found.backend}"
    reason = f"there is no bench result of its artifact, {where}"
    missing.append(MissingResult(str(path), reason, "run edge-resnet bench --save with that artifact"))


def _artifacts(row: Row) -> set[str]:
    return {result.artifact_digest for result in (*([row.latency] if row.latency else []), *row.batches)}
