"""Sinks as a Python program names them: functions, and strings such as ``jsonl:out.jsonl``. Opens none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.outputs import Outputs
from edge_resnet.streaming.records import Frame, Prediction

__all__ = ["FunctionSink", "outputs_of"]

_HINT = "jsonl:FILE, web:PORT, web:HOST:PORT, mqtt:BROKER, video:FILE, uncertain:FOLDER or window"


class FunctionSink:
    """Calls a function with every prediction, one after another, in the sink's own thread.

    An exception of the function is logged, and that prediction counts as lost; the next one is tried.
    """

    name = "function"
    wants_frames = False

    def __init__(self, function: Callable[[Prediction], object]) -> None:
        self._function = function

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Call the function."""
        self._function(prediction)

    def close(self) -> None:
        """Do nothing: no prediction is held back."""

    def __enter__(self) -> FunctionSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def outputs_of(texts: Iterable[str]) -> Outputs:
    """The sinks that the strings name, each kind once, and nothing on the terminal.

    Raises ConfigError for an unknown kind, and for one that is named twice.
    """
    outputs, seen = Outputs(frame_counter=False), set[str]()
    for text in texts:
        kind, _, target = text.partition(":")
        if kind not in ("jsonl", "web", "mqtt", "video", "uncertain", "window") or bool(target) == (kind == "window"):
            raise ConfigError(f"{text!r} names no sink", hint=_HINT)
        if kind in seen:
            raise ConfigError(f"there are two sinks of kind {kind}", hint="give each kind once, or hand in Sink objects")
        seen.add(kind)
        if kind == "jsonl":
            outputs = replace(outputs, jsonl=target)
        elif kind == "web":
            outputs = replace(outputs, web=f"127.0.0.1:{target}" if target.isdecimal() else target)
        elif kind == "mqtt":
            outputs = replace(outputs, mqtt=target)
        elif kind == "video":
            outputs = replace(outputs, save_video=Path(target))
        elif kind == "uncertain":
            outputs = replace(outputs, record_uncertain=Path(target))
        else:
            outputs = replace(outputs, window=True)
    return outputs
