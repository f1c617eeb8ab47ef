"""What a terminal shows of a run: a table with a row per source, lines, or a counter. Does not know how the run works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from edge_resnet.core.text import printable
from edge_resnet.streaming.records import Frame, Prediction, RunStatus, SourceStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["ConsoleSink", "FrameCounter", "TableSink"]

#: Updates per second, whether or not frames arrive: the age of a camera without frames must be seen to grow.
_PER_S = 4
_BAR = 12
#: Sources whose newest prediction is remembered: each image of a folder is a source.
_SOURCES = 256
#: A line of a stream is printed at least so often, even if the answer does not change.
_EVERY_NS = 1_000_000_000
_STYLES = {"live": "green", "opening": "cyan", "ended": "dim", "stalled": "yellow", "reconnecting": "yellow", "failed": "red"}


class TableSink:
    """Shows, per source: state, answer, its probability as a bar, frames per second, age of the newest frame; below, the run.

    ``status`` is called four times a second by a thread of its own. Characters that the terminal's encoding lacks are escaped.
    """

    name = "table"
    wants_frames = False

    def __init__(self, status: Callable[[], RunStatus], console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._status = status
        self._console = console or Console()
        self._ascii = self._console.options.ascii_only
        self._lock = threading.Lock()
        self._newest: dict[str, Prediction] = {}
        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=_PER_S)
        self._started = False

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep one prediction for the next update."""
        with self._lock:
            self._newest.pop(prediction.source, None)
            self._newest[prediction.source] = prediction
            if len(self._newest) > _SOURCES:
                del self._newest[next(iter(self._newest))]
        self._start()

    def close(self) -> None:
        """Draw the table a last time and leave it on the screen."""
        if self._started:
            self._live.stop()

    def __enter__(self) -> TableSink:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._live.start()

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        status = self._status()
        with self._lock:
            newest = dict(self._newest)
        table = Table(expand=False)
        for title in ("source", "state", "answer"):
            table.add_column(title, overflow="crop" if self._ascii else "ellipsis", no_wrap=True)
        for title in ("probability", "fps", "age"):
            table.add_column(title, justify="right", no_wrap=True)
        for source in status.sources:
            best = _best(_of(source, newest, alone=len(status.sources) == 1))
            table.add_row(
                Text(self._safe(source.source)),
                Text(_state(source), _STYLES.get(source.state, "")),
                Text(self._safe(best[0]) if best else "-"),
                Text(self._bar(best[1]) if best else "-"),
                Text(f"{source.frames_per_s:.1f}"),
                Text("-" if source.last_frame_age_s is None else f"{source.last_frame_age_s:.1f} s"),
            )
        errors = [Text(self._safe(line), "red") for line in _errors(status)]
        return Group(table, Text(self._safe(_summary(status))), *errors)

    def _bar(self, probability: float) -> str:
        # NaN compares false with everything: then there is no bar.
        full = min(_BAR, round(_BAR * probability)) if probability > 0 else 0
        on, off = ("#", ".") if self._ascii else ("█", "░")
        return f"{on * full}{off * (_BAR - full)} {100 * probability:3.0f} %"

    def _safe(self, text: str) -> str:
        """The text with control characters, and those that the terminal's encoding lacks, escaped."""
        return printable(text).encode(self._console.encoding, "backslashreplace").decode(self._console.encoding)


def _of(source: SourceStatus, newest: dict[str, Prediction], *, alone: bool) -> Prediction | None:
    """The newest prediction of a source. The images of a folder have names that begin with the folder's."""
    if source.source in newest:
        return newest[source.source]
    fits = [prediction for name, prediction in newest.items() if alone or name.startswith(f"{source.source.rstrip('/')}/")]
    return fits[-1] if fits else None


def _best(prediction: Prediction | None) -> tuple[str, float] | None:
    if prediction is None:
        return None
    best = prediction.answer or prediction.top[0]
    return best.label, best.probability


def _state(source: SourceStatus) -> str:
    fault = "frozen" if source.frozen else "black" if source.black else ""
    return f"{source.state}, {fault}" if fault else source.state


def _summary(status: RunStatus) -> str:
    dropped = sum(source.dropped for source in status.sources)
    return (
        f"{status.backend} {status.precision}: {status.predictions} predictions, {status.frames_per_s:.1f} per second, "
        f"latency p50 {status.latency.p50_ms:.1f} ms, p99 {status.latency.p99_ms:.1f} ms, {dropped} dropped"
    )


def _errors(status: RunStatus) -> list[str]:
    """One line for each source that has failed, and each sink that has lost predictions."""
    sources = [
        f"{source.source}: {source.error}" for source in status.sources if source.error and source.state not in ("live", "ended")
    ]
    return sources + [f"{sink.name}: {sink.lost} lost, {sink.error}" for sink in status.sinks if sink.lost]


class ConsoleSink:
    """Passes lines to ``echo``: of a stream only changes of the answer and one line per second, of image files every one."""

    name = "console"
    wants_frames = False

    def __init__(self, echo: Callable[[str], object]) -> None:
        self._echo = echo
        self._printed: dict[str, Prediction] = {}

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Print one prediction, unless it is like the one before."""
        last = self._printed.get(prediction.source)
        # An image given twice is frame 0 both times.
        if last is not None and last.frame < prediction.frame:
            same = _answer(last) == _answer(prediction)
            if same and prediction.captured_ns - last.captured_ns < _EVERY_NS:
                return
        self._printed.pop(prediction.source, None)
        self._printed[prediction.source] = prediction
        if len(self._printed) > _SOURCES:
            del self._printed[next(iter(self._printed))]
        answers = ", ".join(f"{score.label} {100 * score.probability:.1f} %" for score in prediction.top[:3])
        answer, milliseconds = prediction.answer, sum(prediction.stages_ms.values())
        # After smoothing the answer may not be the frame's best class, or be unknown.
        held = f"{answer.label} <- " if answer and answer.class_index != prediction.top[0].class_index else ""
        self._echo(printable(f"{prediction.source} #{prediction.frame}: {held}{answers}   ({milliseconds:.1f} ms)"))

    def close(self) -> None:
        """Nothing is held back."""

    def __enter__(self) -> ConsoleSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def _answer(prediction: Prediction) -> int:
    return (prediction.answer or prediction.top[0]).class_index


class FrameCounter:
    """For a run that prints no lines: a spinner on a terminal's stderr with the count of frames and the newest class."""

    name = "progress"
    wants_frames = False

    def __init__(self) -> None:
        from rich.console import Console

        self._status = Console(stderr=True).status("waiting for the first frame")
        self._frames = 0

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Count one frame."""
        from rich.text import Text

        self._frames += 1
        best = prediction.answer or prediction.top[0]
        self._status.update(Text(printable(f"{self._frames} frames, {best.label} {100 * best.probability:.0f} %")))

    def close(self) -> None:
        """Remove the spinner."""
        self._status.stop()

    def __enter__(self) -> FrameCounter:
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()
