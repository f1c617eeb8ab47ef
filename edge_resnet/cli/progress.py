"""Progress on stderr: bars for whatever reports through a Progress call, a count of frames. Knows nothing of the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_resnet.core.records import Progress

if TYPE_CHECKING:
    pass

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
