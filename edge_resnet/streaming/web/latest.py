"""The newest frame and prediction of each source, and the run's status, for many clients. Does not know about HTTP.

``put`` is called by the sink's thread and only stores; everything else is called by the server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_resnet.streaming.records import Frame, Prediction, RunStatus

__all__ = ["LatestFrames", "Newest"]

#: Seconds for which a status is reused, however many clients ask.
_STATUS_S = 0.25
#: Minimum seconds between two requests of the status because of an unknown source.
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, eq=False)
class Newest:
    """``number`` counts all predictions of the run from 1. ``index``: the position of its source in the status."""

    number: int
    index: int
    prediction: Prediction
    frame: Frame


class LatestFrames:
    """Holds the newest frame of each source. Safe to use from several threads."""

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
        """Store a prediction; None if it belongs to no source of the status."""
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
        """The newest frame of a source of the status, None before the first one."""
        names = self._names
        return self._newest.get(names[index]) if index < len(names) else None

    def all_newest(self) -> list[Newest]:
        """The newest frame of each source that has one, oldest first."""
        return sorted(self._newest.values(), key=lambda newest: newest.number)

    def _owner(self, name: str) -> tuple[int, str]:
        """Index and name of the status's source that a frame belongs to, -1 for none: files of a folder have their own names."""
        if name not in self._names and time.monotonic() - self._asked_s > _LOOK_AGAIN_S:
            self.status()
        names = self._names
        inside = [folder for folder in names if name == folder or name.startswith(folder.rstrip(os.sep) + os.sep)]
        owner = max(inside, key=len) if inside else names[0] if len(names) == 1 else None
        return (-1, "") if owner is None else (names.index(owner), owner)
