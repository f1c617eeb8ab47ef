"""``edge-resnet selftest``: prints the checks as they are made, and writes the report. Does not know what is checked."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.failures import reader_may_leave
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from edge_resnet.deployment.selftest.check import Check
    from edge_resnet.deployment.selftest.child import Running

__all__ = ["selftest"]

_MARKS = {"ok": "✓", "failed": "✗", "not here": "-"}
_ASCII = {"ok": "+", "failed": "x", "not here": "-"}
_STYLES = {"ok": "green", "failed": "red", "not here": "dim"}
_NAME_WIDTH = 16
#: A check that takes longer is shown while it runs; where that is no terminal, a line tells of one that takes long.
_SHOWN_S, _TOLD_S = 2.0, 30.0


def selftest(
    artifacts: Annotated[list[Path] | None, typer.Argument(metavar="[ARTIFACT]...", help="Artifacts for --full.")] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Check the ARTIFACTs instead of the network that ships, with a benchmark; takes longer."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report, without names and paths. - is stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Compile and run a small network on this machine with every backend, and compare the answers: in under three minutes.

    A line per check: passed, failed, or "not here" with the reason.
    The exit code is 1 if a check failed. A backend that crashes is a failed
    check, because each runs in its own process.
    The report can be attached to an issue.

    edge-resnet selftest --json report.json

    edge-resnet selftest --full artifacts/resnet18-int8 artifacts/resnet50-int8
    """
    from edge_resnet.core.files import check_free, write_whole
    from edge_resnet.deployment.selftest.report import document
    from edge_resnet.deployment.selftest.run import run_selftest
    from edge_resnet.device.machine import describe

    _check(artifacts, full=full)
    to_stdout = json_file == Path("-")
    if json_file is not None and not to_stdout:
        check_free(json_file, force=force)
    started, machine = time.monotonic(), describe()
    checks: list[Check] = []
    with reader_may_leave():
        from rich.console import Console

        console = Console(stderr=to_stdout, highlight=False)
        where = (machine.board or machine.gpu, machine.cpu, machine.os, f"Python {machine.python}")
        console.print(printable(", ".join(filter(None, where))), style="dim", markup=False)
    with _progress(console) as running:
        for check in run_selftest(artifacts or (), running):
            running(check.group, "", 0.0)
            with reader_may_leave():
                _show(console, check, title=not checks or checks[-1].group != check.group)
            checks.append(check)
    seconds = time.monotonic() - started
    with reader_may_leave():
        _show_end(console, checks, seconds)
    report = document(checks, machine, seconds)
    if to_stdout:
        typer.echo(report, nl=False)
    elif json_file is not None:
        write_whole(json_file, report.encode(), force=force)
    if any(check.status == "failed" for check in checks):
        raise typer.Exit(1)


def _check(artifacts: list[Path] | None, *, full: bool) -> None:
    if full and not artifacts:
        raise ConfigError("--full needs the artifacts to check", hint="edge-resnet selftest --full artifacts/resnet50-int8")
    if artifacts and not full:
        raise ConfigError(f"{artifacts[0]} is checked only with --full", hint=f"edge-resnet selftest --full {artifacts[0]}")


def _show(console: Console, check: Check, *, title: bool) -> None:
    """The line of a check, below the title of its group; a long one is continued below its own beginning."""
    from rich.text import Text

    if title:
        console.print(Text(f"\n{printable(check.group)}", style="bold"))
    mark = (_ASCII if console.options.ascii_only else _MARKS)[check.status]
    detail = check.detail if check.status != "not here" else f"not here: {check.detail}"
    detail = printable(": ".join(filter(None, (detail, check.local))))
    indent = _NAME_WIDTH + 5
    shown = _plain(detail) if console.options.ascii_only else detail
    lines = textwrap.wrap(shown, max(20, console.width - indent - 1), break_on_hyphens=False) or [""]
    style = _STYLES[check.status]
    first = Text.assemble("  ", (mark, style), f" {check.name:{_NAME_WIDTH}} ", (lines[0], style if check.status != "ok" else ""))
    rest = [Text(" " * indent + line, style=style if check.status != "ok" else "") for line in lines[1:]]
    for line in (first, *rest):
        console.print(line, soft_wrap=True)


def _plain(text: str) -> str:
    """The text for a terminal without Unicode."""
    return text.replace("→", "->").encode("ascii", "replace").decode()


def _show_end(console: Console, checks: list[Check], seconds: float) -> None:
    from rich.text import Text

    counts = {status: sum(check.status == status for check in checks) for status in _MARKS}
    told = f"\n{counts['ok']} passed, {counts['failed']} failed, {counts['not here']} not here, in {seconds:.0f} s"
    console.print(Text(told, style="bold red" if counts["failed"] else "bold green"))


@contextmanager
def _progress(console: Console) -> Iterator[Running]:
    """What shows the check that runs: a line that passes on a terminal, else a line on stderr now and then."""
    if not console.is_terminal:
        told = 0.0

        def tell(group: str, name: str, seconds: float) -> None:
            nonlocal told
            told = told if seconds else 0.0
            if seconds - told >= _TOLD_S:
                told = seconds
                typer.echo(printable(f"{group}: {name}, {seconds:.0f} s"), err=True)

        yield tell
        return
    from rich.markup import escape

    spinner = "line" if console.options.ascii_only else "dots"
    with console.status("", spinner=spinner) as status:

        def show(group: str, name: str, seconds: float) -> None:
            waited = f", {seconds:.0f} s" if seconds >= _SHOWN_S else ""
            status.update(escape(printable(f"{group}: {name}{waited}")) if name else "")

        yield show
