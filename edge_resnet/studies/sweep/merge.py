"""Rows from files that were measured elsewhere: of bench --save, of eval --save, and other reports. Measures nothing."""

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

__all__ = ["Loaded", "from_files"]


@dataclass(frozen=True)
class Loaded:
    """``rows`` that the files hold, with their ``pairs`` and ``setups``; ``holes``: what they say of others, and what cannot be
    shown."""

    rows: tuple[Row, ...] = ()
    pairs: tuple[Pair, ...] = ()
    holes: tuple[MissingResult, ...] = ()
    setups: tuple[Setup, ...] = ()


def from_files(paths: Sequence[Path]) -> Loaded:
    """Read every file. Raises DataError where one is cut off, of a newer schema, or something else."""
    kinds = {path: kind_of(path) for path in paths}
    reports = [_report(path) for path, kind in kinds.items() if kind == REPORT]
    machines = {_machine(row) for report in reports for row in report.rows}
    reports = [_located(report) for report in reports] if len(machines) > 1 else reports
    rows = [row for report in reports for row in report.rows]
    holes = [hole for report in reports for hole in report.holes]
    for path, kind in kinds.items():
        if kind not in (REPORT, EVALUATION):
            for result in read_results(path):
                _add(rows, holes, result)
    for path, kind in kinds.items():
        if kind == EVALUATION:
            _attach(rows, holes, path, read_evaluation(path))
    pairs = tuple(pair for report in reports for pair in report.pairs)
    return Loaded(tuple(rows), pairs, tuple(holes), tuple(report.setup for report in reports))


def _report(path: Path) -> Report:
    """Its holes say which file they are of."""
    report = read_report(path)
    return replace(report, holes=tuple(replace(hole, what=f"{hole.what} ({path})") for hole in report.holes))


def _located(report: Report) -> Report:
    """The same with the machine in every label: two boards' rows are called alike."""
    names = {row.label: f"{row.label}, {_machine(row)}" for row in report.rows}
    rows = tuple(replace(row, label=names[row.label]) for row in report.rows)
    pairs = tuple(
        replace(pair, reference=names.get(pair.reference, pair.reference), row=names.get(pair.row, pair.row))
        for pair in report.pairs
    )
    return replace(report, rows=rows, pairs=pairs)


def _machine(row: Row) -> str:
    """The board, else the GPU, else the processor."""
    result = next(iter((*([row.latency] if row.latency else []), *row.batches)), None)
    device = None if result is None else result.device
    return "unknown machine" if device is None else device.board or device.gpu or device.cpu


def _add(rows: list[Row], holes: list[MissingResult], result: BenchResult) -> None:
    """To the row of the same artifact on the same machine, where there is one."""
    if result.scenario == "multi-stream":
        holes.append(
            MissingResult(f"{result.model} {result.precision} multi-stream", "a report shows single-stream and offline alone")
        )
        return
    for place, row in enumerate(rows):
        first = row.latency or row.batches[0] if row.latency or row.batches else None
        if first is not None and _kind(first) == _kind(result):
            if result.scenario == "offline":
                rows[place] = replace(row, batches=(*row.batches, result))
                return
            if row.latency is None:
                rows[place] = replace(row, latency=result)
                return
    label = f"{result.model} {result.precision} {result.backend}"
    alone = result.scenario == "single-stream"
    rows.append(Row(label, result.model, result.precision, result.backend, result if alone else None, () if alone else (result,)))


def _kind(result: BenchResult) -> tuple[str, ...]:
    return result.artifact_digest, result.backend, result.device.cpu, str(result.device.gpu), str(result.device.power_mode)


def _attach(rows: list[Row], holes: list[MissingResult], path: Path, found: Evaluation) -> None:
    """An accuracy to the row of its artifact on its backend."""
    for place, row in enumerate(rows):
        native = row.backend == found.backend and not found.simulated
        if native and row.accuracy is None and found.artifact_digest in _artifacts(row):
            rows[place] = replace(row, accuracy=found.accuracy)
            return
    where = f"{found.model} {found.precision}{' simulated' if found.simulated else ''} on {found.backend}"
    holes.append(
        MissingResult(
            str(path), f"no result of bench is of its artifact, {where}", "edge-resnet bench --save, with that artifact"
        )
    )


def _artifacts(row: Row) -> set[str]:
    return {result.artifact_digest for result in (*([row.latency] if row.latency else []), *row.batches)}
