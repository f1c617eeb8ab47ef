"""``edge-resnet compare``: parses the arguments and prints the comparison.

What counts as worse is decided in measurement.compare.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.failures import reader_may_leave
from edge_resnet.cli.tables import table_lines
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.measurement.compare.deltas import Comparison, Delta

__all__ = ["compare"]

_VERDICTS = {"worse": "worse", "better": "better", "unclear": "unclear: may be noise", "same": ""}
#: A gate that failed.
_REGRESSED = 3


def compare(
    old: Annotated[Path, typer.Argument(help="The earlier file of bench --save or eval --save, or a report.json.")],
    new: Annotated[Path, typer.Argument(help="The later file of the same kind.")],
    tolerance: Annotated[float, typer.Option(metavar="PERCENT", help="Allowed change of latencies and rates.")] = 5.0,
    max_drop: Annotated[float, typer.Option(metavar="POINTS", help="Allowed drop of top-1.")] = 0.5,
    force: Annotated[bool, typer.Option("--force", help="Compare different machines or power modes all the same.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a pull request.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Compare two measurements; exit with code 3 if something became worse.

    Worse means beyond the tolerance and beyond noise: the 95 % intervals of two latencies do not overlap, or two accuracies on
    the same images differ significantly.

    edge-resnet bench artifacts/resnet50-int8 --scenario all --save new.json && edge-resnet compare old.json new.json

    edge-resnet eval artifacts/resnet50-int8 --data val/ --save new.json && edge-resnet compare old.json new.json

    edge-resnet compare old/report.json new/report.json --tolerance 10 --markdown
    """
    from edge_resnet.measurement.compare.compare import compare_files

    found = compare_files(old, new, tolerance_percent=tolerance, tolerance_points=max_drop, force=force)
    with reader_may_leave():
        if json_output:
            typer.echo(json.dumps(asdict(found)))
        else:
            for line in _markdown(found) if markdown else _lines(found):
                typer.echo(printable(line))
    if found.regressed:
        raise typer.Exit(_REGRESSED)


def _lines(found: Comparison) -> list[str]:
    lines = table_lines([_row(delta) for delta in found.deltas])
    lines += [f"note: {note}" for note in found.notes]
    return [*lines, "something became worse" if found.regressed else "nothing became worse"]


def _markdown(found: Comparison) -> list[str]:
    lines = ["| figure | old | new | change | |", "|---|---|---|---|---|"]
    for delta in found.deltas:
        old, new = _value(delta.old, delta.old_ci95, delta.unit), _value(delta.new, delta.new_ci95, delta.unit)
        lines.append(f"| {delta.name} | {old} | {new} | {_change(delta)} | {_VERDICTS[delta.verdict]} |")
    lines += ["", *(f"- {note}" for note in found.notes)] if found.notes else []
    return [*lines, "", "**Something became worse.**" if found.regressed else "Nothing became worse."]


def _row(delta: Delta) -> list[str]:
    old, new = _value(delta.old, delta.old_ci95, delta.unit), _value(delta.new, delta.new_ci95, delta.unit)
    return [delta.name, f"{old} → {new}", _change(delta), _VERDICTS[delta.verdict]]


def _value(value: float, interval: tuple[float, float] | None, unit: str) -> str:
    bounds = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{value:.2f} {unit}{bounds}"


def _change(delta: Delta) -> str:
    if delta.change is None:
        return ""
    if delta.unit != "%":
        return f"{delta.change:+.1f} %"
    bounds = f" ({delta.change_ci95[0]:+.2f} to {delta.change_ci95[1]:+.2f}, paired)" if delta.change_ci95 else ""
    return f"{delta.change:+.2f} points{bounds}"
