"""What the loop takes frames from, and files: one after another, every frame. Knows no camera and no network.

Each reader reads in a thread of its own and says so through one condition, on which the loop waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from edge_resnet.streaming.records import Frame, SourceState, SourceStatus
from edge_resnet.streaming.sources import FrameSource

__all__ = ["FileReader", "FrameReader", "Taken", "rate", "remember"]

#: Frames of a file that are decoded ahead: enough that decoding and the network overlap.
_AHEAD = 4
_LAST_READ_S = 0.5
#: Seconds over which frames per second are counted.
_WINDOW_S = 5.0


class Taken(NamedTuple):
    """A frame, and the reader that counts its prediction."""

    frame: Frame
    reader: FrameReader


class FrameReader(Protocol):
    """What the loop takes frames from."""

    def start(self) -> None:
        """Begin to read."""
        ...

    def ready(self) -> bool:
        """Whether ``take`` would give a frame."""
        ...

    def take(self, limit: int) -> list[Frame]:
        """The next frames, up to ``limit``; a camera gives its newest alone."""
        ...

    def over(self) -> bool:
        """Whether no frame will come any more. Raises SourceError where that is because the source failed."""
        ...

    def check(self) -> None:
        """Called now and then by the loop: look after a reader that hangs."""
        ...

    def stop(self) -> None:
        """End reading; what was read and not taken counts as dropped."""
        ...

    def count_prediction(self) -> None:
        """Count a prediction."""
        ...

    def status(self) -> tuple[SourceStatus, ...]:
        """How its sources are."""
        ...


class FileReader:
    """Files one after another: every frame, decoded a few ahead."""

    def __init__(self, sources: Sequence[FrameSource], news: threading.Condition) -> None:
        self._sources, self._news = sources, news
        self._frames: deque[Frame] = deque()
        self._failure: BaseException | None = None
        self._over = self._stopped = False
        self._taken = self._predicted = 0
        self._name = ""
        self._newest_ns: int | None = None
        self._rates: deque[int] = deque()
        self._thread = threading.Thread(target=self._read, name="files", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def ready(self) -> bool:
        """Whether a frame is decoded."""
        return bool(self._frames)

    def take(self, limit: int) -> list[Frame]:
        """The next frames that are decoded, up to ``limit``."""
        with self._news:
            taken = [self._frames.popleft() for _ in range(min(limit, len(self._frames)))]
            self._taken += len(taken)
            self._news.notify_all()
        if taken:
            self._name, self._newest_ns = taken[-1].source, taken[-1].captured_ns
        return taken

    def over(self) -> bool:
        """Whether the last file is through; raises what ended it otherwise."""
        with self._news:
            over = self._over and not self._frames
        if over and self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return over

    def check(self) -> None:
        """A file is waited for."""

    def stop(self) -> None:
        """End reading after the frame at hand, and wait for that: the caller may close a source that is not read any more."""
        with self._news:
            self._stopped = True
            self._frames.clear()
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(_LAST_READ_S)

    def count_prediction(self) -> None:
        """Count a prediction."""
        self._predicted += 1
        remember(self._rates, time.monotonic_ns())

    def status(self) -> tuple[SourceStatus, ...]:
        """One line for all files: the one at hand gives the name."""
        state: SourceState = "failed" if self._failure else "ended" if self._over and not self._frames else "live"
        state = "opening" if state == "live" and not self._taken else state
        lost = sum(source.dropped for source in self._sources)
        age = None if self._newest_ns is None else (time.monotonic_ns() - self._newest_ns) / 1e9
        counts = (self._taken, self._predicted, self._taken - self._predicted if self._stopped else 0, lost, 0)
        error = str(self._failure or "")
        return (SourceStatus(self._name, state, *counts, rate(self._rates), age, False, False, error),)

    def _read(self) -> None:
        try:
            for source in self._sources:
                for frame in source:
                    with self._news:
                        self._news.wait_for(lambda: self._stopped or len(self._frames) < _AHEAD)
                        if self._stopped:
                            return
                        self._frames.append(frame)
                        self._news.notify_all()
        except BaseException as error:  # whatever it is, the loop raises it when the frames before are answered
            self._failure = error
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()


def remember(times: deque[int], now_ns: int) -> None:
    """Note that something happened; what lies before the window is forgotten."""
    times.append(now_ns)
    while times and now_ns - times[0] > _WINDOW_S * 1e9:
        times.popleft()


def rate(times: deque[int]) -> float:
    """Times per second over the window, or since the first where that is shorter."""
    recent = [at for at in tuple(times) if time.monotonic_ns() - at <= _WINDOW_S * 1e9]
    if len(recent) < 2:
        return 0.0
    return (len(recent) - 1) / max((recent[-1] - recent[0]) / 1e9, 1e-9)
