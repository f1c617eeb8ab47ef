"""Predictions for a person: a line per image, for a stream a line when the answer changes. Knows nothing of frames."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from edge_resnet.frame import Frame
from edge_resnet.spec import Prediction

__all__ = ["ConsoleSink"]

#: A stream whose answer does not change is still heard of this often.
_EVERY_NS = 1_000_000_000


class ConsoleSink:
    """Hands lines to ``echo``. A stream's source stays the same from frame to frame: then only changes are told, and once a
    second that it still runs."""

    name = "console"

    def __init__(self, echo: Callable[[str], object]) -> None:
        self._echo = echo
        self._last: Prediction | None = None

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Tell of one prediction, or keep quiet."""
        last = self._last
        # The same image given twice is frame 0 both times.
        if last is not None and last.source == prediction.source and last.frame < prediction.frame:
            same = last.top[0].class_index == prediction.top[0].class_index
            if same and prediction.captured_ns - last.captured_ns < _EVERY_NS:
                return
        self._last = prediction
        answers = ", ".join(f"{score.label} {100 * score.probability:.1f} %" for score in prediction.top[:3])
        milliseconds = sum(prediction.stages_ms.values())
        self._echo(f"{prediction.source} #{prediction.frame}: {answers}   ({milliseconds:.1f} ms)")

    def close(self) -> None:
        """There is nothing held back."""

    def __enter__(self) -> ConsoleSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()
