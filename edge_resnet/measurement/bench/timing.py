"""Times queries: a warm-up that ends when latencies have settled, then one query at a time, or two overlapping.

Does not know about networks: it times calls. Times are nanoseconds of a monotonic clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

__all__ = ["Clock", "Limits", "Tick", "Timings", "WarmUp", "one_by_one", "overlapped", "warm_up"]

#: Nanoseconds of a monotonic clock.
Clock: TypeAlias = Callable[[], int]
#: Called between queries about once a second, with the share that is done, 0 to 1.
Tick: TypeAlias = Callable[[float], object]

_TICK_NS = 1_000_000_000
#: Fewest queries and nanoseconds of a window of the warm-up.
_WINDOW, _WINDOW_NS = 5, 100_000_000
#: Latencies have settled when the medians of so many windows in a row lie within this share of each other.
_SETTLED_WINDOWS, _SETTLED_SHARE = 3, 0.05


@dataclass(frozen=True)
class Limits:
    """When a measurement ends: after both ``seconds`` and ``queries``, or after ``max_seconds`` in any case."""

    seconds: float
    queries: int
    max_seconds: float = float("inf")

    def done(self, elapsed_ns: int, count: int) -> float:
        """The share that is done, from 0 to 1."""
        seconds = elapsed_ns / 1e9
        done = min(seconds / self.seconds if self.seconds else 1.0, count / self.queries)
        return min(1.0, max(done, seconds / self.max_seconds))


@dataclass(frozen=True)
class WarmUp:
    """The queries that were run before and not counted. ``settled``: the medians of three windows in a row were within 5 %."""

    queries: int
    seconds: float
    settled: bool


@dataclass
class Timings:
    """``samples_ns``: the latency of each query. ``outside_ns``: time between queries, spent on measuring.

    ``complete``: the limits of time and number were both reached before ``max_seconds``.
    """

    samples_ns: list[int] = field(default_factory=list)
    outside_ns: int = 0
    complete: bool = False
    interrupted: bool = False


def warm_up(run: Callable[[], object], min_s: float, max_s: float, clock: Clock = time.perf_counter_ns) -> WarmUp:
    """Run queries until their latencies have settled, for at least ``min_s`` and at most ``max_s`` seconds.

    Latencies that stay high but even for longer than ``min_s`` count as settled.
    """
    started = now = clock()
    medians: deque[float] = deque(maxlen=_SETTLED_WINDOWS)
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
        settled = len(medians) == _SETTLED_WINDOWS and max(medians) - min(medians) <= _SETTLED_SHARE * median(medians)
        seconds = (now - started) / 1e9
        if (settled and seconds >= min_s) or seconds >= max_s:
            return WarmUp(queries, seconds, settled)


def one_by_one(run: Callable[[], object], limits: Limits, tick: Tick, clock: Clock = time.perf_counter_ns) -> Timings:
    """Run and time one query at a time. Ctrl-C ends it with the samples so far; the interrupted query does not count."""
    timings = Timings()
    samples = timings.samples_ns
    started = ended = last_tick = clock()
    try:
        while True:
            before = clock()
            timings.outside_ns += before - ended
            run()
            ended = clock()
            samples.append(ended - before)
            done = limits.done(ended - started, len(samples))
            last_tick = _tick_if_due(ended, last_tick, tick, done)
            if done >= 1:
                break
    except KeyboardInterrupt:
        timings.interrupted = True
    return _completed(timings, limits, ended - started)


def overlapped(
    begin: Callable[[], object], end: Callable[[object], object], limits: Limits, tick: Tick, clock: Clock = time.perf_counter_ns
) -> Timings:
    """Keep two queries running, and time from the end of one to the end of the next. ``end`` takes what ``begin`` returned.

    The first query to end does not count, because none ended before it, nor do those still running at the end.
    """
    timings = Timings()
    samples = timings.samples_ns
    pending: deque[object] = deque()
    try:
        pending.extend((begin(), begin()))
        end(pending.popleft())
        started = ended = last_tick = clock()
        while limits.done(ended - started, len(samples)) < 1:
            pending.append(begin())
            end(pending.popleft())
            previous, ended = ended, clock()
            samples.append(ended - previous)
            last_tick = _tick_if_due(ended, last_tick, tick, limits.done(ended - started, len(samples)))
            timings.outside_ns += clock() - ended
        while pending:
            end(pending.popleft())
    except KeyboardInterrupt:
        timings.interrupted = True
        return timings
    return _completed(timings, limits, ended - started)


def _tick_if_due(now: int, last_tick: int, tick: Tick, done: float) -> int:
    """Call ``tick`` if a second has passed since the last call; returns the time of the last call."""
    if now - last_tick < _TICK_NS:
        return last_tick
    tick(done)
    return now


def _completed(timings: Timings, limits: Limits, elapsed_ns: int) -> Timings:
    count = len(timings.samples_ns)
    timings.complete = not timings.interrupted and count >= limits.queries and elapsed_ns >= limits.seconds * 1e9
    return timings
