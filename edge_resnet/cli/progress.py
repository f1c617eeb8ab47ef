"""Progress on stderr: bars for whatever reports through a Progress call, a count of frames. Knows nothing of the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from edge_resnet.core.records import Progress
from edge_resnet.streaming.records import Prediction

if TYPE_CHECKING:
    from edge_resnet.streaming.records import Frame

__all__ = ["FrameCounter", "progress_bars"]


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


class FrameCounter:
    """A sink for a run that prints no lines: a spinner on a terminal with the frames so far and the newest answer."""

    name = "progress"
    wants_frames = False

    def __init__(self) -> None:
        from rich.console import Console

        self._status = Console(stderr=True).status("waiting for the first frame")
        self._frames = 0

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Count one frame."""
        self._frames += 1
        best = prediction.top[0]
        self._status.update(f"{self._frames} frames, {best.label} {100 * best.probability:.0f} %")

    def close(self) -> None:
        """Take the spinner away."""
        self._status.stop()

    def __enter__(self) -> FrameCounter:
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()
