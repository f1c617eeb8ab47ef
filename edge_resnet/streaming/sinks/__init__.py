"""Where predictions go: the protocol. Does not know about formats or devices."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from edge_resnet.streaming.records import Frame, Prediction

__all__ = ["Sink"]


class Sink(Protocol):
    """Takes predictions in order. A context manager; ``close`` writes what is held back and may be called twice.

    ``write`` is always called by the same thread, which is not the one that predicts.
    """

    #: Its name in the status and the log, for example ``jsonl``.
    name: str
    #: Whether it uses the image; if not, it may get a frame without pixels.
    wants_frames: bool

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Take one prediction and its frame, which is shared and must not be changed.

        Raises EdgeResnetError if it cannot be written; the next one is tried all the same.
        """
        ...

    def close(self) -> None:
        """Write what is held back, and release files and connections."""
        ...

    def __enter__(self) -> Sink: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...
