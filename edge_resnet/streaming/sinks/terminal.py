"""A table for a person at a terminal, a row per source, drawn over and over. Knows nothing of how a run comes to its figures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from edge_resnet.streaming.records import Frame, Prediction, RunStatus, SourceStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from edge_resnet.streaming.records import Frame

__all__ = ["ConsoleSink", "FrameCounter", "TableSink"]

#: Drawn this often whether or not a frame comes: the age of a camera that gives none must be seen to grow.
_PER_S = 4
_BAR = 12
#: Sources whose newest answer is remembered: images of a folder are a source each.
_SOURCES = 256
_STYLES = {"live": "green", "opening": "cyan", "ended": "dim", "stalled": "yellow", "reconnecting": "yellow", "failed": "red"}


class TableSink:
    """Shows, per source: state, answer, its probability as a bar, frames a second, age of the newest frame; below, the run.

    ``status`` is asked four times a second, from a thread of its own. What the terminal's encoding lacks is escaped.
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
        """Remember one prediction for the next time the table is drawn."""
        with self._lock:
            self._newest.pop(prediction.source, None)
            self._newest[prediction.source] = prediction
            if len(self._newest) > _SOURCES:
                del self._newest[next(iter(self._newest))]
        self._start()

    def close(self) -> None:
        """Draw it a last time and leave it on the screen."""
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
        # A probability that is no number compares false with everything: no bar.
        full = min(_BAR, round(_BAR * probability)) if probability > 0 else 0
        on, off = ("#", ".") if self._ascii else ("█", "░")
        return f"{on * full}{off * (_BAR - full)} {100 * probability:3.0f} %"

    def _safe(self, text: str) -> str:
        """What neither moves the cursor nor is beyond the terminal's encoding."""
        plain = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text)
        return plain.encode(self._console.encoding, "backslashreplace").decode(self._console.encoding)


def _of(source: SourceStatus, newest: dict[str, Prediction], *, alone: bool) -> Prediction | None:
    """The newest prediction of a source. A folder's images bear names of their own, which begin with the folder's."""
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
    seen = "frozen" if source.frozen else "black" if source.black else ""
    return f"{source.state}, {seen}" if seen else source.state


def _summary(status: RunStatus) -> str:
    dropped = sum(source.dropped for source in status.sources)
    return (
        f"{status.backend} {status.precision}: {status.predictions} predictions, {status.frames_per_s:.1f} per second, "
        f"latency p50 {status.latency.p50_ms:.1f} ms, p99 {status.latency.p99_ms:.1f} ms, {dropped} dropped"
    )


def _errors(status: RunStatus) -> list[str]:
    """One line for each source and sink that is in trouble now, or has lost something."""
    sources = [
        f"{source.source}: {source.error}" for source in status.sources if source.error and source.state not in ("live", "ended")
    ]
    return sources + [f"{sink.name}: {sink.lost} lost, {sink.error}" for sink in status.sinks if sink.lost]


#: A stream whose answer does not change is still heard of this often.
_EVERY_NS = 1_000_000_000


class ConsoleSink:
    """Hands lines to ``echo``. A stream's source stays the same from frame to frame: then only changes are told, and once a
    second that it still runs."""

    name = "console"
    wants_frames = False

    def __init__(self, echo: Callable[[str], object]) -> None:
        self._echo = echo
        self._told: dict[str, Prediction] = {}

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Tell of one prediction, or keep quiet."""
        last = self._told.get(prediction.source)
        # The same image given twice is frame 0 both times.
        if last is not None and last.frame < prediction.frame:
            same = _answer(last) == _answer(prediction)
            if same and prediction.captured_ns - last.captured_ns < _EVERY_NS:
                return
        self._told.pop(prediction.source, None)
        self._told[prediction.source] = prediction
        if len(self._told) > _SOURCES:
            del self._told[next(iter(self._told))]
        answers = ", ".join(f"{score.label} {100 * score.probability:.1f} %" for score in prediction.top[:3])
        answer, milliseconds = prediction.answer, sum(prediction.stages_ms.values())
        # Smoothing may hold on to what is not the frame's best class, or to none.
        held = f"{answer.label} <- " if answer and answer.class_index != prediction.top[0].class_index else ""
        self._echo(f"{prediction.source} #{prediction.frame}: {held}{answers}   ({milliseconds:.1f} ms)")

    def close(self) -> None:
        """There is nothing held back."""

    def __enter__(self) -> ConsoleSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def _answer(prediction: Prediction) -> int:
    return (prediction.answer or prediction.top[0]).class_index


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
