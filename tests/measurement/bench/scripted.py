"""Backends with scripted latencies, on a clock that only they advance. No network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType

import numpy as np

from edge_resnet.images.preprocess import ImageArray
from edge_resnet.runtime.backend import Images, Logits

MS = 1_000_000


class HandClock:
    """A clock in nanoseconds that is advanced by hand."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        """The time now."""
        return self.now


class Scripted:
    """Answers after the next of the latencies in milliseconds; an exception among them is raised."""

    name = "fake"
    classes = 10

    def __init__(self, clock: HandClock, latencies_ms: Iterable[float | BaseException]) -> None:
        self.clock = clock
        self.latencies: Iterator[float | BaseException] = iter(latencies_ms)
        self.seen: list[Images] = []

    def infer(self, images: Images) -> Logits:
        """Take the scripted time."""
        latency = next(self.latencies)
        if isinstance(latency, BaseException):
            raise latency
        self.clock.now += round(latency * MS)
        self.seen.append(images)
        return np.zeros((len(images), self.classes), np.float32)

    def close(self) -> None:
        """Free nothing."""

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


class Telling(Scripted):
    """A backend that reports its copies."""

    def infer_timed(self, images: Images) -> tuple[Logits, Mapping[str, float]]:
        """Report fixed stage times."""
        return self.infer(images), {"h2d": 0.25, "compute": 1.5, "d2h": 0.125}


class TwoSlots(Scripted):
    """A device that works on one batch after another while the caller need not wait; more than two at once are refused."""

    resizes = True
    max_batch = 16

    def __init__(self, clock: HandClock, latencies_ms: Iterable[float]) -> None:
        super().__init__(clock, latencies_ms)
        self.free_at = 0
        self.under_way: deque[int] = deque()
        self.max_running = 0

    def submit(self, images: Images) -> int:
        """Queue a batch behind those before it."""
        latency = next(self.latencies)
        assert isinstance(latency, float)
        self.seen.append(images)
        self.free_at = max(self.free_at, self.clock.now) + round(latency * MS)
        self.under_way.append(self.free_at)
        self.max_running = max(self.max_running, len(self.under_way))
        assert len(self.under_way) <= 2
        return self.free_at

    def result(self, ticket: int) -> Logits:
        """Wait until it is done."""
        assert self.under_way.popleft() == ticket
        self.clock.now = max(self.clock.now, ticket)
        return np.zeros((1, self.classes), np.float32)

    def submit_frames(self, frames: Sequence[ImageArray]) -> int:
        """The same of frames."""
        return self.submit(np.stack(frames))

    def infer_frames(self, frames: Sequence[ImageArray]) -> Logits:
        """Run frames at once."""
        return self.infer(np.stack(frames))
