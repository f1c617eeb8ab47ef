"""Waits until it is time for a frame. Knows nothing of frames."""

from __future__ import annotations

import time
from threading import Event

__all__ = ["Pace"]


class Pace:
    """A clock that starts with the first frame; ``stop``, from any thread, ends the wait under way and all to come."""

    def __init__(self) -> None:
        self._stopped = Event()
        self._start_ns: int | None = None

    @property
    def stopped(self) -> bool:
        """Whether it was stopped."""
        return self._stopped.is_set()

    def wait(self, seconds: float) -> int:
        """Wait until ``seconds`` after the first call's moment; returns the moment that was due, in ns on the monotonic clock.

        What is late is due at once, and keeps the moment at which it was due.
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
