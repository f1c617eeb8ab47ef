"""Predictions for a person: a line per image, for a stream a line when the answer changes. Knows nothing of frames."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from edge_resnet.core.records import Prediction
from edge_resnet.frame import Frame

__all__ = ["ConsoleSink"]

#: A stream whose answer does not change is still heard of this often.
_EVERY_NS = 1_000_000_000


#: Sources whose last line is remembered: pictures of a folder are a source each.
_SOURCES = 256


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
