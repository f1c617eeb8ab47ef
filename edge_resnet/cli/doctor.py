"""``edge-resnet doctor``: lays out what this machine has, what is missing, and the commands that fix it.

Does not know how anything is checked (edge_resnet.deployment.doctor does).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.failures import reader_may_leave
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edge_resnet.deployment.doctor.check import Check
    from edge_resnet.deployment.doctor.checks import Readiness
    from edge_resnet.device.machine import DeviceInfo
    from edge_resnet.runtime.backend import BackendInfo

__all__ = ["doctor"]

_TITLES = {
    "machine": "this machine",
    "base": "to run on images",
    "backends": "backends",
    "compile": "to compile engines",
    "build": "to build artifacts",
    "camera": "to run on cameras",
    "tensorrt": "to run on an NVIDIA GPU",
    "demo": "for the demo",
}
_INDENT = len("  ✓ ")
_GAP = 2
_STYLES = {"ok": "green", "missing": "dim", "problem": "red"}


def doctor(json_output: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False) -> None:
    """Show what this machine has, what is missing or broken, and the command that fixes each problem.

    Exits with code 1 only if a package that every command needs is missing or broken.

    Example: edge-resnet doctor
    """
    from edge_resnet.deployment.doctor.checks import examine, readiness
    from edge_resnet.device.machine import describe

    info = describe()
    checks = examine(info=info)
    ready = readiness(checks, _backends())
    with reader_may_leave():
        if json_output:
            document = {"device": asdict(info), "checks": [asdict(check) for check in checks], "ready": asdict(ready)}
            typer.echo(json.dumps(document, indent=2))
        else:
            from rich.console import Console

            _show(Console(highlight=False), info, checks, ready)
    if any(check.group == "base" and check.status != "ok" for check in checks):
        raise typer.Exit(1)


def _backends() -> dict[str, BackendInfo]:
    """What each backend declares that ``auto`` may choose; none if numpy is too broken to read the table."""
    try:
        from edge_resnet.runtime.backend import BACKENDS, backend_info
    except ImportError:
        return {}
    return {name: info for name in BACKENDS if (info := backend_info(name)).auto_rank is not None}


def _show(console: Console, info: DeviceInfo, checks: Sequence[Check], ready: Readiness) -> None:
    """Print the checks by group, with the fixes beside them if the terminal is wide enough, else below; fixes never wrap."""
    from rich.text import Text

    # A GPU's name and a library's error are words of others.
    checks = [replace(check, detail=printable(check.detail), fix=printable(check.fix)) for check in checks]
    fixes = [check for check in checks if check.fix]
    name_width = max(len(check.name) for check in checks)
    detail_width = max(len(check.detail) for check in checks)
    fix_width = max((len(check.fix) for check in fixes), default=0)
    beside = _INDENT + name_width + detail_width + fix_width + 2 * _GAP <= console.width
    console.print(Text(", ".join(filter(None, (info.board, info.os, f"Python {info.python}")))), soft_wrap=True)
    for group, title in _TITLES.items():
        members = [check for check in checks if check.group == group]
        console.print(Text(f"\n{title}", style="bold"))
        detail = detail_width if beside else None
        console.print(_table(members, _INDENT + name_width, detail, ascii_only=console.options.ascii_only))
    if fixes and not beside:
        console.print(Text("\nfixes", style="bold"))
        for check in fixes:
            console.print(Text.assemble(" " * _INDENT, f"{check.name:{name_width + _GAP}}", (check.fix, "cyan")), soft_wrap=True)
    console.print(Text(f"\n{_last_line(ready)}", style="bold red" if ready.reason else "bold green"), soft_wrap=True)


def _table(checks: Sequence[Check], name_width: int, detail_width: int | None, *, ascii_only: bool) -> Table:
    """Mark and name, detail and, if the detail has a width, the fix beside it."""
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": "+", "missing": "-", "problem": "x"} if ascii_only else {"ok": "✓", "missing": "-", "problem": "✗"}
    table = Table.grid(padding=(0, _GAP, 0, 0))
    table.add_column(no_wrap=True, min_width=name_width)
    table.add_column(overflow="fold", min_width=detail_width)
    if detail_width:
        table.add_column(no_wrap=True, style="cyan")
    for check in checks:
        style = _STYLES[check.status]
        name = Text.assemble("  ", (marks[check.status], style), f" {check.name}")
        detail = Text(check.detail, style="dim" if check.status == "missing" else "")
        table.add_row(name, detail, *([Text(check.fix)] if detail_width else []))
    return table


def _last_line(ready: Readiness) -> str:
    if ready.reason:
        return f"not ready: {ready.reason}"
    table = _backends()
    processors = {kind: [name for name in ready.backends if table[name].processor == kind] for kind in ("GPU", "CPU")}
    places = [f"{processor} ({', '.join(names)})" for processor, names in processors.items() if names]
    return f"ready: {', '.join(ready.commands)} on {' and '.join(places)}"
