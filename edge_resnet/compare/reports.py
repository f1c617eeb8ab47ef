"""Two reports beside each other, row by row: what is judged of each network on each backend. Reads no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_resnet.bench.record import BenchResult
from edge_resnet.compare.accuracies import top1, unpaired
from edge_resnet.compare.latencies import differences, metric, other_notes
from edge_resnet.compare.record import Delta
from edge_resnet.report.record import Report, Row

__all__ = ["reports"]


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
            notes += [f"{before.label}: {note}" for note in other_notes(one, other)]
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
