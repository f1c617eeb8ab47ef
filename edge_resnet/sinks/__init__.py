"""Where predictions go: the protocol. Knows no format and no device."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from edge_resnet.spec import Prediction

__all__ = ["Sink"]


class Sink(Protocol):
    """Takes predictions in order. A context manager; ``close`` writes what is held back and may be called twice."""

    def write(self, prediction: Prediction) -> None:
        """Take one prediction. Raises EdgeResnetError where it cannot be written."""
        ...

    def close(self) -> None:
        """Write what is held back and let go."""
        ...

    def __enter__(self) -> Sink: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...
