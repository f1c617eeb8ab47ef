"""Rows from files that were measured elsewhere: of bench --save, of eval --json, and other reports. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edge_resnet.bench import BenchResult, read_results
from edge_resnet.errors import DataError
from edge_resnet.report.record import KIND, Accuracy, Hole, Pair, Report, Row, Setup, read_report

__all__ = ["Loaded", "from_files"]

_EVALUATION = frozenset({"images", "top1", "top5", "ci95", "backend", "precision"})


@dataclass(frozen=True)
class Loaded:
    """``rows`` that the files hold, with their ``pairs`` and ``setups``; ``holes``: what they say of others, and what cannot be
    shown."""

    rows: tuple[Row, ...] = ()
    pairs: tuple[Pair, ...] = ()
    holes: tuple[Hole, ...] = ()
    setups: tuple[Setup, ...] = ()


def from_files(paths: Sequence[Path]) -> Loaded:
    """Read every file. Raises DataError where one is cut off, of a newer schema, or something else."""
    contents = [(path, _content(path)) for path in paths]
    reports = [_report(path) for path, content in contents if _is(content, "report")]
    machines = {_machine(row) for report in reports for row in report.rows}
    reports = [_located(report) for report in reports] if len(machines) > 1 else reports
    rows = [row for report in reports for row in report.rows]
    holes = [hole for report in reports for hole in report.holes]
    for path, content in contents:
        if not _is(content, "report") and not _is(content, "evaluation"):
            for result in read_results(path):
                _add(rows, holes, result)
    for path, content in contents:
        if _is(content, "evaluation"):
            _attach(rows, holes, path, content)
    pairs = tuple(pair for report in reports for pair in report.pairs)
    return Loaded(tuple(rows), pairs, tuple(holes), tuple(report.setup for report in reports))


def _is(content: Any, kind: Literal["report", "evaluation"]) -> bool:
    if not isinstance(content, dict):
        return False
    return content.get("kind") == KIND if kind == "report" else content.keys() >= _EVALUATION


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


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check the spelling") from error
    except ValueError as error:
        raise DataError(f"{path} is cut off, or no JSON: {error}", hint="copy it again, or measure again") from error


def _add(rows: list[Row], holes: list[Hole], result: BenchResult) -> None:
    """To the row of the same artifact on the same machine, where there is one."""
    if result.scenario == "multi-stream":
        holes.append(Hole(f"{result.model} {result.precision} multi-stream", "a report shows single-stream and offline alone"))
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


def _attach(rows: list[Row], holes: list[Hole], path: Path, content: dict[str, Any]) -> None:
    """An accuracy to the one row that it can be of: eval names backend and precision, but no artifact."""
    fitting = [
        place
        for place, row in enumerate(rows)
        if (row.backend, row.precision) == (content["backend"], content["precision"]) and row.accuracy is None
    ]
    if len(fitting) != 1:
        many = f"{'several rows' if fitting else 'no row'} of {content['precision']} on {content['backend']}"
        remedy = "give the artifact and --data instead"
        holes.append(Hole(str(path), f"{many} could be meant: it names no artifact", remedy))
        return
    try:
        low, high = content["ci95"]
        accuracy = Accuracy(
            int(content["images"]), float(content["top1"]), float(content["top5"]), (float(low), float(high)), str(path)
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not what edge-resnet eval writes: {error}", hint="run edge-resnet eval --json again"
        ) from error
    rows[fitting[0]] = replace(rows[fitting[0]], accuracy=accuracy)
