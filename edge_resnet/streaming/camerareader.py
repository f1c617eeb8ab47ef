"""Cameras: the newest frame wins, one that fails is opened again, one that hangs is left alone. Knows no driver, no network."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_resnet.core.errors import EdgeResnetError, SourceError
from edge_resnet.images.checks import FrozenFrameDetector
from edge_resnet.streaming.filereader import rate, remember
from edge_resnet.streaming.records import Frame, SourceState, SourceStatus
from edge_resnet.streaming.sources import FrameSource, open_source, public_uri

__all__ = ["CameraReader", "CameraSpec", "RetryPolicy", "backoff"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CameraSpec:
    """A live source. ``first``: what was opened already, None to open it in the feed. ``again``: whether it is opened again when
    it fails or ends, as a camera is, and a file that is played at its own pace is not."""

    uri: str
    first: FrameSource | None = None
    again: bool = True
    open: Callable[[str], FrameSource] = open_source


@dataclass(frozen=True)
class RetryPolicy:
    """How long a camera may be silent, and how it is tried again; seconds.

    ``read_s``: without a frame it counts as hung. ``frozen_s``, ``black_s``: of the same or of black frames until it is said.
    ``min_s``, ``max_s``: the first and the longest pause before it is opened again. ``hangs``: readers that hang for good,
    after which the process is better started anew.
    """

    read_s: float = 15.0
    frozen_s: float = 10.0
    black_s: float = 5.0
    min_s: float = 0.5
    max_s: float = 30.0
    hangs: int = 5


def backoff(attempt: int, patience: RetryPolicy) -> float:
    """Seconds to wait before attempt 0, 1, …: doubled each time up to the longest, and between half and the whole of that.

    Cameras that failed together are so not tried together.
    """
    longest = min(patience.max_s, patience.min_s * 2.0 ** min(attempt, 32))
    return longest * random.uniform(0.5, 1.0)


class CameraReader:
    """One camera: its newest frame, opened again and again when it fails, and left alone when it hangs."""

    def __init__(
        self, camera: CameraSpec, news: threading.Condition, patience: RetryPolicy | None = None, per_second: float | None = None
    ) -> None:
        self._camera, self._news = camera, news
        self._patience = patience or RetryPolicy()
        self._min_ns = 0 if per_second is None else int(1e9 / per_second)
        #: The newest frame that was not looked at yet. The look waits for ``check``: the answer does not wait for the look.
        self._unseen: Frame | None = None
        self._look = FrozenFrameDetector(frozen_s=self._patience.frozen_s, black_s=self._patience.black_s)
        self._name = public_uri(camera.uri)
        self._slot: Frame | None = None
        self._source: FrameSource | None = None
        self._state: SourceState = "opening"
        self._error = ""
        self._frames = self._answered = self._dropped = self._lost = self._reconnects = 0
        self._newest_ns: int | None = None
        self._due_ns = 0
        self._alive_ns = time.monotonic_ns()
        self._rates: deque[int] = deque()
        self._stopped = threading.Event()
        #: Readers of an older generation were given up: what they still deliver is not taken.
        self._generation = 0
        self._reader: threading.Thread | None = None
        self._stuck: list[threading.Thread] = []
        self._refreshed = False

    def start(self) -> None:
        """Begin to read, from the source that was opened already where there is one."""
        self._begin(self._camera.first)

    def ready(self) -> bool:
        """Whether a frame came that was not taken."""
        return self._slot is not None

    def take(self, limit: int) -> list[Frame]:  # noqa: ARG002 - the protocol's signature
        """The newest frame, once."""
        with self._news:
            frame, self._slot = self._slot, None
        return [] if frame is None else [frame]

    def over(self) -> bool:
        """Whether it ended and is not opened again. A camera is tried again for as long as its readers do not hang for good."""
        if self._state == "failed":
            raise SourceError(f"{self._name} is given up: {self._error}", hint="start anew; is its driver well?")
        return self._state == "ended" and self._slot is None

    def check(self) -> None:
        """Give up a reader that has delivered nothing for too long, and begin with a new one."""
        now = time.monotonic_ns()
        frame, self._unseen = self._unseen, None
        if frame is not None:
            self._look.see(frame.image, frame.captured_ns)
            if not self._look.frozen:
                self._refreshed = False
        look_again = self._look.frozen and not self._refreshed
        if self._state in ("reconnecting", "ended", "failed") or (
            now - self._alive_ns < self._patience.read_s * 1e9 and not look_again
        ):
            return
        if look_again:
            self._refreshed = True  # once: an image that stands still may be what there is to see
            reason = "its image stands still"
        else:
            # Those that woke up since do not count: a camera that stalls now and then, over months, is none that hangs for good.
            self._stuck = [reader for reader in (*self._stuck, self._reader) if reader is not None and reader.is_alive()]
            reason = f"no frame for {self._patience.read_s:g} s"
        _log.warning("%s: %s: it is opened again", self._name, reason)
        self._error = reason
        if len(self._stuck) > self._patience.hangs:
            self._state = "failed"
            return
        with self._news:
            self._generation += 1  # before it is closed: the old reader wakes up of that, and must know
        self._close()
        self._state = "opening"
        self._begin(None)

    def stop(self) -> None:
        """End reading; the frame that nobody took is dropped."""
        self._stopped.set()
        with self._news:
            self._generation += 1
            if self._slot is not None:
                self._slot = None
                self._dropped += 1
        self._close()

    def answered(self) -> None:
        """Count a prediction."""
        self._answered += 1
        remember(self._rates, time.monotonic_ns())

    def status(self) -> tuple[SourceStatus, ...]:
        """How the camera is."""
        state, newest = self._state, self._newest_ns
        if state == "live" and (self._look.frozen or self._look.black):
            state = "stalled"
        age = None if newest is None else (time.monotonic_ns() - newest) / 1e9
        source = self._source
        lost = self._lost + (source.dropped if source is not None else 0)
        counts = (self._frames, self._answered, self._dropped, lost, self._reconnects)
        return (
            SourceStatus(self._name, state, *counts, rate(self._rates), age, self._look.frozen, self._look.black, self._error),
        )

    def _begin(self, source: FrameSource | None) -> None:
        with self._news:
            self._generation += 1
            generation = self._generation
        self._alive_ns = time.monotonic_ns()
        self._reader = threading.Thread(target=self._read, args=(generation, source), name=f"camera {self._name}", daemon=True)
        self._reader.start()

    def _read(self, generation: int, source: FrameSource | None) -> None:
        attempt = 0
        while not self._stopped.is_set() and generation == self._generation:
            began = time.monotonic()
            try:
                with source or self._camera.open(self._camera.uri) as opened:
                    source = None
                    if generation != self._generation:
                        return
                    self._source = opened
                    for frame in opened:
                        if not self._offer(frame, generation):
                            return
                reason = f"{self._name} ended"
                if not self._camera.again:
                    self._end("ended", "")
                    return
            except EdgeResnetError as error:
                reason = error.message
            except Exception as error:  # a driver may raise anything, and this thread must not die of it
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            if self._stopped.is_set() or generation != self._generation:
                return
            if not self._camera.again:
                self._end("failed", reason)
                return
            if time.monotonic() - began > self._patience.max_s:
                attempt = 0  # it worked for a while: this is a new failure
            pause = backoff(attempt, self._patience)
            attempt += 1
            self._fail(reason, pause)
            self._stopped.wait(pause)
            self._alive_ns = time.monotonic_ns()
            self._state = "opening"

    def _offer(self, frame: Frame, generation: int) -> bool:
        """Put a frame where the loop takes it; False where this reader was given up."""
        with self._news:
            if generation != self._generation:
                return False
            if self._state != "live" and self._frames:
                self._reconnects += 1
                _log.warning("%s delivers frames again", frame.source)
            self._state, self._error = "live", ""
            self._name, self._newest_ns, self._alive_ns = frame.source, frame.captured_ns, time.monotonic_ns()
            self._unseen = frame
            numbered = replace(frame, index=self._frames)
            self._frames += 1
            if frame.captured_ns < self._due_ns:
                self._dropped += 1
                return True
            self._due_ns = max(self._due_ns + self._min_ns, frame.captured_ns + self._min_ns // 2)
            behind = self._slot is not None
            self._dropped += behind
            self._slot = numbered
            self._news.notify_all()
        if behind:
            # A source that is far too fast would take lock and interpreter again before the loop gets both.
            time.sleep(0)
        return True

    def _end(self, state: SourceState, reason: str) -> None:
        with self._news:
            self._state, self._error = state, reason
            self._news.notify_all()

    def _fail(self, reason: str, pause: float) -> None:
        source, self._source = self._source, None
        if source is not None:
            self._lost += source.dropped
        self._state, self._error = "reconnecting", reason
        _log.warning("%s: it is opened again in %.1f s", reason, pause)

    def _close(self) -> None:
        """Close from here what a reader may hang in, without waiting for it."""
        source, self._source = self._source, None
        if source is not None:
            self._lost += source.dropped
            threading.Thread(target=source.close, name="closing", daemon=True).start()
