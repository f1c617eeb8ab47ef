"""Progress bars on stderr, for work that reports through a Progress call and for training. Does not know about the work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from edge_resnet.core.records import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from edge_resnet.network.training import EpochRecord

__all__ = ["TrainBar", "progress_bars", "train_bar"]


#: Seconds between two lines of progress in a log.
_LINE_S = 30.0


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a Progress that draws a bar per stage on stderr; where that is no terminal, a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description:<13}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console) as bars:

        def report(stage: str, done: int, total: int) -> None:
            unit, name = (2**20, "download, MiB") if stage == "download" else (1, stage)
            if stage not in tasks:
                tasks[stage] = bars.add_task(name, total=total // unit)
            bars.update(tasks[stage], completed=done // unit, total=total // unit)

        yield report


def _lines() -> Progress:
    """A Progress for a log: a line where ``_LINE_S`` have passed since the one before, so that short work prints nothing."""
    last_s = time.monotonic()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= _LINE_S:
            last_s = time.monotonic()
            share = f"{100 * done / total:.0f} %" if total else f"{done}"
            typer.echo(f"{stage}: {share}", err=True)

    return report


class TrainBar:
    """What ``fit`` reports to: a line per epoch, above a bar if stderr is a terminal."""

    def __init__(self, bars: Bars, epochs: float) -> None:
        self._bars = bars
        self._epochs = f"{epochs:g}"
        self._tasks = {"train": bars.add_task("training", total=None)}
        self._running = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show steps, or bytes of a download."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage)
        description = self._running if stage == "train" and self._running else None
        self._bars.update(self._tasks[stage], completed=done, total=total, description=description)

    def running(self, epoch: int, loss: float, error: float) -> None:
        """Show the means of the current epoch so far."""
        self._running = f"epoch {epoch}/{self._epochs}  loss {loss:.3f}  top-1 {100 - error:.1f} %"

    def epoch(self, record: EpochRecord) -> None:
        """Print the line of a finished epoch."""
        tested = (
            "" if record.test_error is None else f"  test: loss {record.test_loss:.3f}  top-1 {100 - record.test_error:.2f} %"
        )
        line = (
            f"epoch {record.epoch}/{self._epochs}  rate {record.rate:.2g}  loss {record.train_loss:.3f}  "
            f"top-1 {100 - record.train_error:.2f} %{tested}  {record.images_per_s:.0f} images/s"
        )
        if self._bars.disable:
            typer.echo(line, err=True)
        else:
            self._bars.console.print(line, highlight=False)


@contextmanager
def train_bar(epochs: float) -> Iterator[TrainBar]:
    """Yield a TrainBar; the bar is removed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield TrainBar(bars, epochs)
