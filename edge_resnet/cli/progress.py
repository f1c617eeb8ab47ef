"""Progress bars on stderr for whatever reports through a Progress call. Knows nothing of the work behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_resnet.spec import Progress

__all__ = ["progress_bars"]


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a Progress that draws a bar per stage on stderr; on something that is no terminal it draws nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<13}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        def report(stage: str, done: int, total: int) -> None:
            unit, name = (2**20, "download, MiB") if stage == "download" else (1, stage)
            if stage not in tasks:
                tasks[stage] = bars.add_task(name, total=total // unit)
            bars.update(tasks[stage], completed=done // unit, total=total // unit)

        yield report
