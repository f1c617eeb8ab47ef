"""Waits until a frame is due. Does not know about frames themselves."""

from __future__ import annotations

import time
from threading import Event

__all__ = ["Pace"]


class Pace:
    """A clock that starts with the first frame. ``stop``, from any thread, ends the current wait and all later ones."""

    def __init__(self) -> None:
        self._stopped = Event()
        self._start_ns: int | None = None

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped.is_set()

    def wait(self, seconds: float) -> int:
        """Wait until ``seconds`` after the time of the first call; returns the time that was due, in ns on the monotonic clock.

        If that time has passed, it is returned at once.
        """
        now = time.monotonic_ns()
        if self._start_ns is None:
            self._start_ns = now - int(seconds * 1e9)
        due = self._start_ns + int(seconds * 1e9)
        if due > now:
            self._stopped.wait((due - now) / 1e9)
        return due

    def stop(self) -> None:
        """End all waiting."""
        self._stopped.set()
