"""Tables of a report: all rows for the page, CSV and Markdown, and the machine, options and caveats behind them.

Does not know about HTML.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_resnet.device.machine import DeviceInfo
from edge_resnet.measurement.accuracy import Accuracy
from edge_resnet.measurement.bench.result import BenchResult
from edge_resnet.measurement.page.html import Cell, Column, Table
from edge_resnet.measurement.page.html import Row as TableRow
from edge_resnet.measurement.report.format import ms
from edge_resnet.measurement.report.front import dominated_by
from edge_resnet.measurement.report.record import Report, Row

__all__ = ["caveats_of", "environment", "main_table", "records", "results_of", "to_csv", "to_markdown"]

_MIB = 1 << 20


@dataclass(frozen=True)
class _Figure:
    """A column: its ``key`` in the CSV, its ``label`` in tables, and how a row's value is found and written.

    ``value`` is None where it was not measured; ``interval`` is its 95 % interval, where there is one.
    """

    key: str
    label: str
    value: Callable[[Row], float | None]
    text: Callable[[float], str]
    interval: Callable[[Row], tuple[float, float] | None] = lambda _: None


def main_table(report: Report) -> Table:
    """All rows, with every figure that at least one row has; dominated rows are grey."""
    figures = _figures(report.rows)
    columns = (Column("Network"), *(Column(figure.label, numeric=True) for figure in figures))
    rows = tuple(
        TableRow(
            (Cell(row.label, note=_domination(row, report.rows)), *(_cell(figure, row) for figure in figures)),
            tone="quiet" if dominated_by(row, report.rows) else "",
        )
        for row in _by_latency(report.rows)
    )
    caption = "With 95 % intervals. Grey rows are dominated: another network is at least as accurate and as fast."
    return Table("measurements", caption, columns, rows, sortable=True)


def records(report: Report) -> list[dict[str, str | float | None]]:
    """All rows as plain values with the same keys; None for what was not measured."""
    figures = _figures(report.rows)
    found = []
    for row in _by_latency(report.rows):
        record: dict[str, str | float | None] = {
            "label": row.label, "model": row.model, "precision": row.precision, "backend": row.backend
        }  # fmt: skip
        for figure in figures:
            value, bounds = figure.value(row), figure.interval(row)
            record[figure.key] = None if value is None else round(value, 4)
            if _has_interval(figure, report.rows):
                for end, place in (("low", 0), ("high", 1)):
                    record[f"{figure.key}_{end}"] = None if bounds is None else round(bounds[place], 4)
        better = dominated_by(row, report.rows)
        record["dominated_by"] = None if better is None else better.label
        record["artifact_digest"] = None if row.latency is None else row.latency.artifact_digest
        found.append(record)
    return found


def to_csv(report: Report) -> str:
    """``records`` as CSV; empty cells for what was not measured."""
    file = io.StringIO()
    lines = records(report)
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def to_markdown(table: Table) -> str:
    """A table of the page as Markdown, with its notes in brackets."""
    lines = [_markdown_line([column.label for column in table.columns])]
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|")
    for row in table.rows:
        cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row.cells]
        lines.append(_markdown_line([f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in cells]))
    return "\n".join(lines)


def environment(report: Report) -> list[tuple[str, str]]:
    """How the report was measured, as names and values: machines, versions, backends, images, options."""
    results = [result for _, result in results_of(report)]
    machines = dict.fromkeys(_machine(result.device) for result in results)
    versions = dict.fromkeys(_versions(result) for result in results)
    rules = dict.fromkeys(result.rules for result in results)
    backends = list(dict.fromkeys(row.backend for row in report.rows))
    if len(backends) > 1:
        backends = [f"{row.backend} ({row.label})" for row in report.rows]
    found = [("Machine", line) for line in machines] + [("Versions", line) for line in versions]
    found += [("Backend", ", ".join(backends)), ("Rules", "; ".join(rules))]
    found += [("Accuracy", report.setup.data), ("Calibration", report.setup.calibration)]
    found += list(report.setup.options.items())
    return [(name, value) for name, value in found if value]


def caveats_of(report: Report) -> list[str]:
    """The caveats: notes on the set-up, then each benchmark's warnings, the same warning once with all rows that have it."""
    labels_by_warning: dict[str, list[str]] = {}
    for label, result in results_of(report):
        for warning in result.warnings:
            labels_by_warning.setdefault(warning, []).append(label)
    lines = [f"{', '.join(dict.fromkeys(labels))}: {warning}" for warning, labels in labels_by_warning.items()]
    return [*report.setup.notes, *lines]


def results_of(report: Report) -> Iterator[tuple[str, BenchResult]]:
    """Every benchmark of the report, with a label."""
    for row in report.rows:
        if row.latency is not None:
            yield row.label, row.latency
        for result in row.batches:
            yield f"{row.label} in batches of {result.batch}", result


def _by_latency(rows: Sequence[Row]) -> list[Row]:
    """The fastest first; rows without a latency last."""
    return sorted(rows, key=lambda row: float("inf") if row.latency is None else row.p90_ms)


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _figures(rows: Sequence[Row]) -> list[_Figure]:
    """The columns that at least one row has a value for."""
    found = [
        _Figure("p90_ms", "p90, ms", _of_latency(lambda result: result.p90_ms), ms, _latency_interval),
        _Figure("p50_ms", "p50, ms", _of_latency(lambda result: result.p50_ms), ms),
        _Figure("p99_ms", "p99, ms", _of_latency(lambda result: result.p99_ms), ms),
        _Figure("top1", "Top-1, %", _of_accuracy(lambda accuracy: accuracy.top1), _percent, _accuracy_interval),
        _Figure("top5", "Top-5, %", _of_accuracy(lambda accuracy: accuracy.top5), _percent),
    ]
    found += [_rate(batch) for batch in sorted({result.batch for row in rows for result in row.batches})]
    found += [
        _Figure("mj_per_image", "mJ per image", _of_latency(lambda result: result.mj_per_image), ms),
        _Figure("cold_start_ms", "Cold start, ms", _of_latency(lambda result: result.cold_start_ms), ms),
        _Figure("host_memory_mib", "Memory, MiB", _of_latency(lambda result: result.host_memory_mib), ms),
        _Figure("gpu_memory_mib", "GPU, MiB", _of_latency(lambda result: result.gpu_memory_mib), ms),
        _Figure("engine_mib", "Engine, MiB", _of_latency(lambda result: result.engine_bytes / _MIB), ms),
    ]
    return [figure for figure in found if any(figure.value(row) is not None for row in rows)]


def _of_latency(value: Callable[[BenchResult], float | None]) -> Callable[[Row], float | None]:
    """A figure of the row's single-stream result."""
    return lambda row: None if row.latency is None else value(row.latency)


def _of_accuracy(value: Callable[[Accuracy], float]) -> Callable[[Row], float | None]:
    """A figure of the row's accuracy."""
    return lambda row: None if row.accuracy is None else value(row.accuracy)


def _rate(batch: int) -> _Figure:
    def value(row: Row) -> float | None:
        return next((result.throughput_per_s for result in row.batches if result.batch == batch), None)

    def interval(row: Row) -> tuple[float, float] | None:
        return next((result.metric.ci95 for result in row.batches if result.batch == batch), None)

    return _Figure(f"images_per_s_batch_{batch}", f"Images/s, batch {batch}", value, ms, interval)


def _cell(figure: _Figure, row: Row) -> Cell:
    value, bounds = figure.value(row), figure.interval(row)
    if value is None:
        return Cell("\N{EN DASH}", note="", tone="quiet")
    return Cell(figure.text(value), float(value), "" if bounds is None else " to ".join(figure.text(bound) for bound in bounds))


def _domination(row: Row, rows: Sequence[Row]) -> str:
    better = dominated_by(row, rows)
    return "" if better is None else f"dominated by {better.label}"


def _has_interval(figure: _Figure, rows: Sequence[Row]) -> bool:
    return any(figure.interval(row) is not None for row in rows)


def _latency_interval(row: Row) -> tuple[float, float] | None:
    return None if row.latency is None else row.latency.metric.ci95


def _accuracy_interval(row: Row) -> tuple[float, float] | None:
    return None if row.accuracy is None else row.accuracy.ci95


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _machine(device: DeviceInfo) -> str:
    memory = None if device.memory_total_mib is None else f"{device.memory_total_mib / 1024:.0f} GiB"
    jetpack = None if device.jetpack is None else f"JetPack {device.jetpack}"
    mode = None if device.power_mode is None else f"power mode {device.power_mode}"
    cores = f"{device.usable_cores} {'core' if device.usable_cores == 1 else 'cores'} of {device.cpu}"
    return ", ".join(part for part in (device.board, device.gpu, cores, memory, jetpack, mode, device.os) if part)


def _versions(result: BenchResult) -> str:
    return ", ".join(f"{name} {version}" for name, version in result.versions.items())
