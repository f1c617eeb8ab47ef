"""Cameras: the newest frame wins, a camera that fails is reopened, a reader that hangs is abandoned.

Does not know about drivers or protocols. A camera has one thread and one slot: a ``LiveSource`` delivers from the thread that
reads it, any other source is iterated in a thread started here. ``check`` is the one place that watches the time.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from edge_resnet.core.errors import EdgeResnetError, SourceError
from edge_resnet.images.checks import FrozenFrameDetector
from edge_resnet.streaming.filereader import rate, remember
from edge_resnet.streaming.records import Frame, SourceState, SourceStatus
from edge_resnet.streaming.sources import FrameSource, open_source, public_uri
from edge_resnet.streaming.sources.live import HungReaderError, LiveSource

__all__ = ["CameraReader", "CameraSpec", "RetryPolicy", "backoff"]

_log = logging.getLogger(__name__)

#: Seconds after which it is said again that frames of a camera cannot be classified.
_QUIET_S = 60.0


@dataclass(frozen=True)
class CameraSpec:
    """A live source. ``first``: the source if it is open already, None if the reader shall open it. ``again``: whether it is
    reopened when it fails or ends: a camera is, a file that is played at its own pace is not."""

    uri: str
    first: FrameSource | None = None
    again: bool = True
    open: Callable[[str], FrameSource] = open_source


@dataclass(frozen=True)
class RetryPolicy:
    """How long a camera may give no frame, and how it is reopened; times in seconds.

    ``read_s``: without a frame for so long it counts as hung, unless its own read timeout is shorter. ``frozen_s``, ``black_s``:
    of identical or black frames until the status reports it. ``min_s``, ``max_s``: the first and the longest pause before it is
    reopened. ``hangs``: how many threads may hang at once; with one more the camera has failed, and only a restart of the process
    helps.
    """

    read_s: float = 15.0
    frozen_s: float = 10.0
    black_s: float = 5.0
    min_s: float = 0.5
    max_s: float = 30.0
    hangs: int = 5


def backoff(attempt: int, retry: RetryPolicy) -> float:
    """Seconds to wait before attempt 0, 1, …: doubled each time up to the longest, times a random factor from 0.5 to 1.

    The factor keeps cameras that failed together from being retried together.
    """
    longest = min(retry.max_s, retry.min_s * 2.0 ** min(attempt, 32))
    return longest * random.uniform(0.5, 1.0)


class CameraReader:
    """One camera: holds its newest frame, reopens it when it fails, and abandons a thread that hangs."""

    def __init__(
        self, camera: CameraSpec, news: threading.Condition, retry: RetryPolicy | None = None, per_second: float | None = None
    ) -> None:
        self._camera, self._news = camera, news
        self._retry = retry or RetryPolicy()
        self._min_ns = 0 if per_second is None else int(1e9 / per_second)
        #: The newest frame that was not examined yet. ``check`` examines it, so that the prediction does not wait for that.
        self._unchecked: Frame | None = None
        self._detector = FrozenFrameDetector(frozen_s=self._retry.frozen_s, black_s=self._retry.black_s)
        self._name = public_uri(camera.uri)
        self._slot: Frame | None = None
        self._source: FrameSource | None = None
        self._state: SourceState = "opening"
        self._error = ""
        self._frames = self._predicted = self._dropped = self._lost = self._refused = self._reconnects = 0
        self._refused_s = -_QUIET_S
        self._newest_ns: int | None = None
        self._due_ns = 0
        self._alive_ns = self._opened_ns = time.monotonic_ns()
        self._rates: deque[int] = deque()
        self._stopped = threading.Event()
        #: Counts the attempts to read. What a thread of an earlier generation still delivers is not taken.
        self._generation = 0
        self._attempt = 0
        self._thread: threading.Thread | None = None
        self._hung: list[threading.Thread] = []
        self._refreshed = False

    def start(self) -> None:
        """Start to read, from the source that is open already if there is one."""
        self._begin(self._camera.first)

    def ready(self) -> bool:
        """Whether there is a frame that was not taken."""
        return self._slot is not None

    def take(self, limit: int) -> list[Frame]:  # noqa: ARG002 - the protocol's signature
        """The newest frame, once."""
        with self._news:
            frame, self._slot = self._slot, None
        return [] if frame is None else [frame]

    def over(self) -> bool:
        """Whether it ended and is not reopened. Raises SourceError if it failed for good."""
        if self._state == "failed":
            raise SourceError(f"{self._name} has failed: {self._error}", hint="restart edge-resnet; check the camera's driver")
        return self._state == "ended" and self._slot is None

    def check(self) -> None:
        """Reopen the camera if it gave no frame for too long, or once if its image is frozen."""
        generation, now, source = self._generation, time.monotonic_ns(), self._source
        frame, self._unchecked = self._unchecked, None
        if frame is not None:
            self._detector.see(frame.image, frame.captured_ns)
            if not self._detector.frozen:
                self._refreshed = False
        if self._state in ("reconnecting", "ended", "failed"):
            return
        waited_s = (now - self._alive_ns) / 1e9
        overdue = source.overdue(waited_s) if isinstance(source, LiveSource) else None
        if overdue is not None or waited_s >= self._retry.read_s:
            reason = f"{self._name} gave no frame for {self._retry.read_s:g} s" if overdue is None else overdue.message
            self._give_up(generation, reason)
        elif self._detector.frozen and not self._refreshed:
            self._refreshed = True  # once: a still image may be what there is to see
            self._reopen(generation, f"{self._name} gives the same image again and again")

    def stop(self) -> None:
        """Stop reading; a frame that was not taken counts as dropped."""
        self._stopped.set()
        with self._news:
            self._generation += 1
            if self._slot is not None:
                self._slot = None
                self._dropped += 1
        self._close()

    def count_prediction(self) -> None:
        """Count a prediction."""
        self._predicted += 1
        remember(self._rates, time.monotonic_ns())

    def refuse(self, frame: Frame, reason: EdgeResnetError) -> None:
        """Count the frame as lost, with a warning once a minute: a camera may change its size, and others go on."""
        self._refused += 1
        now = time.monotonic()
        if now - self._refused_s >= _QUIET_S:
            self._refused_s = now
            _log.warning("%s: a frame is lost: %s", frame.source, reason.message)

    def status(self) -> tuple[SourceStatus, ...]:
        """The camera's state and counts."""
        state, newest = self._state, self._newest_ns
        if state == "live" and (self._detector.frozen or self._detector.black):
            state = "stalled"
        age = None if newest is None else (time.monotonic_ns() - newest) / 1e9
        source = self._source
        status = SourceStatus(
            source=self._name,
            state=state,
            frames=self._frames - self._refused,
            predicted=self._predicted,
            dropped=self._dropped,
            lost=self._lost + self._refused + (source.dropped if source is not None else 0),
            reconnects=self._reconnects,
            frames_per_s=rate(self._rates),
            last_frame_age_s=age,
            frozen=self._detector.frozen,
            black=self._detector.black,
            error=self._error,
        )
        return (status,)

    def _begin(self, source: FrameSource | None, closing: threading.Thread | None = None, pause_s: float = 0.0) -> None:
        with self._news:
            self._generation += 1
            generation = self._generation
        self._alive_ns = time.monotonic_ns()
        self._thread = threading.Thread(
            target=self._work, args=(generation, source, closing, pause_s), name=f"camera {self._name}", daemon=True
        )
        self._thread.start()

    def _work(self, generation: int, source: FrameSource | None, closing: threading.Thread | None, pause_s: float) -> None:
        """Open the source after a pause, unless it is open, and read it until it ends or this thread is abandoned."""
        if closing is not None:
            closing.join(self._retry.read_s)  # a device that is still open cannot be opened again
        self._stopped.wait(pause_s)
        if self._stopped.is_set() or generation != self._generation:
            return
        self._alive_ns = self._opened_ns = time.monotonic_ns()
        self._state = "opening"
        reason = ""
        try:
            opened = source or self._camera.open(self._camera.uri)
            if not self._adopt(opened, generation):
                opened.close()
            elif isinstance(opened, LiveSource):
                thread = opened.deliver(partial(self._offer, generation), lambda error: self._finish(generation, error.message))
                with self._news:
                    if generation == self._generation:
                        self._thread = thread
                return
            else:
                with opened:
                    for frame in opened:
                        if not self._offer(generation, frame):
                            return
        except HungReaderError as error:
            reason = error.message
            self._abandon(error.thread)
        except EdgeResnetError as error:
            reason = error.message
        except Exception as error:  # a driver may raise anything, and the camera must be reopened all the same
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        self._finish(generation, reason)

    def _adopt(self, source: FrameSource, generation: int) -> bool:
        with self._news:
            if generation != self._generation:
                return False
            self._source, self._alive_ns = source, time.monotonic_ns()
            return True

    def _offer(self, generation: int, frame: Frame) -> bool:
        """Put a frame into the slot; False if this generation was abandoned."""
        with self._news:
            if generation != self._generation:
                return False
            if self._state != "live" and self._frames:
                self._reconnects += 1
                _log.warning("%s delivers frames again", frame.source)
            self._state, self._error = "live", ""
            self._name, self._newest_ns, self._alive_ns = frame.source, frame.captured_ns, time.monotonic_ns()
            self._unchecked = frame
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

    def _finish(self, generation: int, reason: str) -> None:
        """The source failed with ``reason``, or ended."""
        if self._stopped.is_set() or generation != self._generation:
            return
        if self._camera.again:
            self._reopen(generation, reason or f"{self._name} ended", pause=True)
            return
        with self._news:
            self._state, self._error = "failed" if reason else "ended", reason
            self._news.notify_all()

    def _give_up(self, generation: int, reason: str) -> None:
        """Abandon a thread that delivers nothing, and read in a new one."""
        self._abandon(self._thread)
        self._reopen(generation, reason, pause=isinstance(self._source, LiveSource))

    def _abandon(self, thread: threading.Thread | None) -> None:
        """Remember a thread that should end and may hang."""
        with self._news:
            if thread is not None and thread not in self._hung:
                self._hung.append(thread)

    def _hangs_too_often(self, reason: str) -> bool:
        """Whether so many threads hang at once that the camera has failed for good."""
        with self._news:
            # Threads that have ended since do not count: a camera that stalls now and then, over months, does not hang for good.
            self._hung = [thread for thread in self._hung if thread.is_alive()]
            if len(self._hung) <= self._retry.hangs:
                return False
            self._state, self._error = "failed", reason
            self._news.notify_all()
        _log.warning("%s: too many of its threads hang", reason)
        return True

    def _reopen(self, generation: int, reason: str, *, pause: bool = False) -> None:
        """Close the source and open it again in a new thread, unless another thread does so already."""
        if self._hangs_too_often(reason):
            return
        with self._news:
            if self._stopped.is_set() or generation != self._generation:
                return
            self._state, self._error = "reconnecting", reason
            self._generation += 1  # before the source is closed: that wakes its thread, which must not report an end
            if self._thread is not threading.current_thread():
                self._abandon(self._thread)
        if time.monotonic_ns() - self._opened_ns > self._retry.max_s * 1e9:
            self._attempt = 0  # it worked for a while: this is a new failure
        pause_s = backoff(self._attempt, self._retry) if pause else 0.0
        self._attempt += pause
        _log.warning("%s; reopening it in %.1f s", reason, pause_s)
        self._begin(None, self._close(), pause_s)

    def _close(self) -> threading.Thread | None:
        """Close the source in a thread of its own, since a reader may hang in it."""
        source, self._source = self._source, None
        if source is None:
            return None
        self._lost += source.dropped
        closing = threading.Thread(target=source.close, name="closing", daemon=True)
        closing.start()
        return closing
