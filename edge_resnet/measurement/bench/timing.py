"""Times queries: a warm-up that ends when latencies have settled, then one query after another, or several under way.

Knows no network: what is timed is a call. Times are nanoseconds of a monotonic clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

__all__ = ["Clock", "Limits", "Tick", "Timings", "WarmUp", "one_by_one", "overlapped", "warm_up"]

#: Nanoseconds that never go back.
Clock: TypeAlias = Callable[[], int]
#: Called about once a second, between queries, with the share that is done, 0 to 1.
Tick: TypeAlias = Callable[[float], object]

_TICK_NS = 1_000_000_000
#: A window of the warm-up: at least so many queries, and so many nanoseconds.
_WINDOW, _WINDOW_NS = 5, 100_000_000
#: So many windows in a row whose medians lie within this share of each other are called settled.
_ALIKE, _SETTLED = 3, 0.05


@dataclass(frozen=True)
class Limits:
    """When a measurement ends: after ``seconds`` and ``queries``, whichever is later, but after ``max_seconds`` in any case."""

    seconds: float
    queries: int
    max_seconds: float = float("inf")

    def done(self, elapsed_ns: int, count: int) -> float:
        """The share that is done, 1 at the end."""
        seconds = elapsed_ns / 1e9
        asked = min(seconds / self.seconds if self.seconds else 1.0, count / self.queries)
        return min(1.0, max(asked, seconds / self.max_seconds))


@dataclass(frozen=True)
class WarmUp:
    """What was run and not counted. ``settled``: the medians of three windows in a row came within 5 % of each other."""

    queries: int
    seconds: float
    settled: bool


@dataclass
class Timings:
    """``samples_ns``: per query. ``outside_ns``: spent between queries, on measuring. ``complete``: the limits were reached by
    count and time, not by ``max_seconds``."""

    samples_ns: list[int] = field(default_factory=list)
    outside_ns: int = 0
    complete: bool = False
    interrupted: bool = False


def warm_up(run: Callable[[], object], min_s: float, max_s: float, clock: Clock = time.perf_counter_ns) -> WarmUp:
    """Run queries until their latencies have settled: for ``min_s`` at least, ``max_s`` at most.

    A beginning that is slow and even for longer than ``min_s`` is taken for settled.
    """
    started = now = clock()
    medians: deque[float] = deque(maxlen=_ALIKE)
    queries = 0
    while True:
        window: list[int] = []
        opened = now
        while len(window) < _WINDOW or now - opened < _WINDOW_NS:
            before = now
            run()
            now = clock()
            window.append(now - before)
        queries += len(window)
        medians.append(median(window))
        settled = len(medians) == _ALIKE and max(medians) - min(medians) <= _SETTLED * median(medians)
        seconds = (now - started) / 1e9
        if (settled and seconds >= min_s) or seconds >= max_s:
            return WarmUp(queries, seconds, settled)


def one_by_one(run: Callable[[], object], limits: Limits, tick: Tick, clock: Clock = time.perf_counter_ns) -> Timings:
    """Run one query after another and time each. Ctrl-C ends it with what there is; the query under way does not count."""
    timings = Timings()
    samples = timings.samples_ns
    started = ended = clock()
    told = started
    try:
        while True:
            begun = clock()
            timings.outside_ns += begun - ended
            run()
            ended = clock()
            samples.append(ended - begun)
            done = limits.done(ended - started, len(samples))
            told = _told(ended, told, tick, done)
            if done >= 1:
                break
    except KeyboardInterrupt:
        timings.interrupted = True
    return _judged(timings, limits, ended - started)


def overlapped(
    begin: Callable[[], object], end: Callable[[object], object], limits: Limits, tick: Tick, clock: Clock = time.perf_counter_ns
) -> Timings:
    """Keep two queries under way, and time from one's end to the next one's. ``end`` takes what ``begin`` returned.

    The first to end has none before it and does not count, nor do those under way at the end.
    """
    timings = Timings()
    samples = timings.samples_ns
    pending: deque[object] = deque()
    try:
        pending.extend((begin(), begin()))
        end(pending.popleft())
        started = ended = told = clock()
        while limits.done(ended - started, len(samples)) < 1:
            pending.append(begin())
            end(pending.popleft())
            previous, ended = ended, clock()
            samples.append(ended - previous)
            told = _told(ended, told, tick, limits.done(ended - started, len(samples)))
            timings.outside_ns += clock() - ended
        while pending:
            end(pending.popleft())
    except KeyboardInterrupt:
        timings.interrupted = True
        return timings
    return _judged(timings, limits, ended - started)


def _told(now: int, told: int, tick: Tick, done: float) -> int:
    """When the last tick was."""
    if now - told < _TICK_NS:
        return told
    tick(done)
    return now


def _judged(timings: Timings, limits: Limits, elapsed_ns: int) -> Timings:
    count = len(timings.samples_ns)
    timings.complete = not timings.interrupted and count >= limits.queries and elapsed_ns >= limits.seconds * 1e9
    return timings
