"""The protocol of readers, and the reader of files: one file after another, every frame. Does not know about cameras or networks.

Each reader has a thread of its own. All notify one condition, on which the loop waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.streaming.records import Frame, SourceState, SourceStatus
from edge_resnet.streaming.sources import FrameSource

__all__ = ["FileReader", "FrameReader", "Taken", "rate", "remember"]

#: Frames of a file that are decoded ahead, so that decoding and inference overlap; and their bytes, but for one that is larger.
_AHEAD, _AHEAD_BYTES = 4, 64 << 20
_LAST_READ_S = 0.5
_IMAGE_NS = 1_000_000_000
#: Seconds over which frames per second are counted.
_WINDOW_S = 5.0


class Taken(NamedTuple):
    """A frame, and the reader it came from."""

    frame: Frame
    reader: FrameReader


class FrameReader(Protocol):
    """What the loop takes frames from."""

    def start(self) -> None:
        """Start to read."""
        ...

    def ready(self) -> bool:
        """Whether ``take`` would return a frame."""
        ...

    def take(self, limit: int) -> list[Frame]:
        """The next frames, at most ``limit``; of a camera only the newest."""
        ...

    def over(self) -> bool:
        """Whether no more frames will come. Raises SourceError if that is because the source failed."""
        ...

    def check(self) -> None:
        """Called by the loop a few times a second: notice a source that hangs."""
        ...

    def stop(self) -> None:
        """Stop reading; frames that were not taken count as dropped."""
        ...

    def count_prediction(self) -> None:
        """Count a prediction."""
        ...

    def refuse(self, frame: Frame, reason: EdgeResnetError) -> None:
        """Count a frame that was taken and cannot be classified, for ``reason``. Raises the reason for a file."""
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
        """Start to read."""
        self._thread.start()

    def ready(self) -> bool:
        """Whether there is a decoded frame."""
        return bool(self._frames)

    def take(self, limit: int) -> list[Frame]:
        """The next decoded frames, at most ``limit``."""
        with self._news:
            taken = [self._frames.popleft() for _ in range(min(limit, len(self._frames)))]
            self._taken += len(taken)
            self._news.notify_all()
        if taken:
            self._name, self._newest_ns = taken[-1].source, taken[-1].captured_ns
        return taken

    def over(self) -> bool:
        """Whether all files have been read. Raises the error that ended the reading, if there was one."""
        with self._news:
            over = self._over and not self._frames
        if over and self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return over

    def check(self) -> None:
        """Nothing to do: a file may take as long as it needs."""

    def stop(self) -> None:
        """Stop after the current frame and wait for that, so that the caller may close the sources."""
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

    def refuse(self, frame: Frame, reason: EdgeResnetError) -> None:  # noqa: ARG002 - the protocol's signature
        """Raise the reason: the frames of a file are what the user asked for."""
        raise reason

    def status(self) -> tuple[SourceStatus, ...]:
        """One status for all files, named after the current one."""
        state: SourceState = "failed" if self._failure else "ended" if self._over and not self._frames else "live"
        state = "opening" if state == "live" and not self._taken else state
        lost = sum(source.dropped for source in self._sources)
        age = None if self._newest_ns is None else (time.monotonic_ns() - self._newest_ns) / 1e9
        status = SourceStatus(
            source=self._name,
            state=state,
            frames=self._taken,
            predicted=self._predicted,
            dropped=self._taken - self._predicted if self._stopped else 0,
            lost=lost,
            reconnects=0,
            frames_per_s=rate(self._rates),
            last_frame_age_s=age,
            frozen=False,
            black=False,
            error=str(self._failure or ""),
        )
        return (status,)

    def _read(self) -> None:
        try:
            for source in self._sources:
                for number, frame in enumerate(source):
                    if frame.position_ns is None:  # an image: a recording shows one per second
                        frame = replace(frame, position_ns=number * _IMAGE_NS)
                    if not self._put(frame):
                        return
        except BaseException as error:  # the loop raises it after the frames before it were predicted
            self._failure = error
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()

    def _put(self, frame: Frame) -> bool:
        """Add a frame once there is a place for it; False if the reader was stopped."""

        def has_place() -> bool:
            waiting = sum(other.image.nbytes for other in self._frames)
            few = len(self._frames) < _AHEAD and waiting + frame.image.nbytes <= _AHEAD_BYTES
            return self._stopped or not self._frames or few

        with self._news:
            self._news.wait_for(has_place)
            if not self._stopped:
                self._frames.append(frame)
                self._news.notify_all()
            return not self._stopped


def remember(times: deque[int], now_ns: int) -> None:
    """Add an event to ``times`` and drop those before the window."""
    times.append(now_ns)
    while times and now_ns - times[0] > _WINDOW_S * 1e9:
        times.popleft()


def rate(times: deque[int]) -> float:
    """Events per second over the window, or since the first event if that is shorter."""
    recent = [at for at in tuple(times) if time.monotonic_ns() - at <= _WINDOW_S * 1e9]
    if len(recent) < 2:
        return 0.0
    return (len(recent) - 1) / max((recent[-1] - recent[0]) / 1e9, 1e-9)
