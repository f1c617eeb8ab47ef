"""Where predictions go: the protocol. Knows no format and no device."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from edge_resnet.streaming.records import Frame, Prediction

__all__ = ["Sink"]


class Sink(Protocol):
    """Takes predictions in order. A context manager; ``close`` writes what is held back and may be called twice.

    All calls come from one thread, which is not the one that predicts.
    """

    #: What the status and the log call it, for example ``jsonl``.
    name: str
    #: Whether it looks at the frame; where not, it may get one without pixels.
    wants_frames: bool

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Take one prediction and the frame it is of, which is shared and not to be changed.

        Raises EdgeResnetError where it cannot be written; the next one is tried again.
        """
        ...

    def close(self) -> None:
        """Write what is held back and let go."""
        ...

    def __enter__(self) -> Sink: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...
