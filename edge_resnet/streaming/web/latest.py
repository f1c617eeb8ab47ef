"""The newest frame and prediction of each source, and the run's status, for many readers. Knows nothing of HTTP.

``put`` is called by the pipeline and only stores; everything else is called by the server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_resnet.streaming.records import Frame, Prediction, RunStatus

__all__ = ["LatestFrames", "Newest"]

#: Many pages that ask within this time are told the same.
_STATUS_S = 0.25
#: A frame of a name not heard of yet: the status is asked this often at most.
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, eq=False)
class Newest:
    """``number`` counts all predictions of the run from 1. ``index``: which of the status's sources it belongs to."""

    number: int
    index: int
    prediction: Prediction
    frame: Frame


class LatestFrames:
    """Holds one frame per source, however many come. Safe to use from several threads."""

    def __init__(self, status: Callable[[], RunStatus]) -> None:
        self._ask = status
        self._lock = threading.Lock()
        self._status: RunStatus | None = None
        self._asked_s = float("-inf")
        self._names: tuple[str, ...] = ()
        self._newest: dict[str, Newest] = {}
        self._count = 0
        self.last_put_s = time.monotonic()

    def put(self, prediction: Prediction, frame: Frame) -> Newest | None:
        """Store; None where the prediction belongs to no source of the status."""
        index, name = self._owner(frame.source)
        self.last_put_s = time.monotonic()
        if index < 0:
            return None
        self._count += 1
        newest = Newest(self._count, index, prediction, frame)
        self._newest[name] = newest
        return newest

    def status(self) -> RunStatus:
        """The run's status, at most a quarter of a second old."""
        with self._lock:
            now = time.monotonic()
            if self._status is None or now - self._asked_s > _STATUS_S:
                self._status = self._ask()
                self._asked_s = now
                self._names = tuple(source.source for source in self._status.sources)
            return self._status

    def newest(self, index: int) -> Newest | None:
        """The newest of one source of the status, None before its first."""
        names = self._names
        return self._newest.get(names[index]) if index < len(names) else None

    def all_newest(self) -> list[Newest]:
        """The newest of each source that has one, oldest first."""
        return sorted(self._newest.values(), key=lambda newest: newest.number)

    def _owner(self, name: str) -> tuple[int, str]:
        """Which source of the status a frame's name belongs to, -1 for none: the files of a folder have names of their own."""
        if name not in self._names and time.monotonic() - self._asked_s > _LOOK_AGAIN_S:
            self.status()
        names = self._names
        inside = [folder for folder in names if name == folder or name.startswith(folder.rstrip(os.sep) + os.sep)]
        owner = max(inside, key=len) if inside else names[0] if len(names) == 1 else None
        return (-1, "") if owner is None else (names.index(owner), owner)
