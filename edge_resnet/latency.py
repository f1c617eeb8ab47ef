"""Latencies: measured on the monotonic clock, summarised by one definition of a percentile. Knows nothing of networks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from edge_resnet.spec import LatencyStats

__all__ = ["measure", "percentile", "summarise"]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below or at which ``share`` (0, 100] percent of ``ordered`` (ascending, not empty) lie: the nearest rank.

    It is always one of the values, as in MLPerf's rules; nothing is interpolated.
    """
    # Multiplied first: 99.9 / 100 * 1000 is a little above 999, and its rank one too high.
    return ordered[max(0, math.ceil(share * len(ordered) / 100) - 1)]


def summarise(samples_ms: Sequence[float]) -> LatencyStats:
    """Summary of latencies in milliseconds; all zero where there is none."""
    if not samples_ms:
        return LatencyStats(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    ordered = sorted(samples_ms)
    p50, p90, p99, p999 = (percentile(ordered, share) for share in (50, 90, 99, 99.9))
    return LatencyStats(len(ordered), math.fsum(ordered) / len(ordered), p50, p90, p99, p999, ordered[-1])


def measure(call: Callable[[], object], *, warmup: int, seconds: float) -> list[float]:
    """Time ``call`` again and again for ``seconds`` after ``warmup`` uncounted calls; returns milliseconds, at least one."""
    for _ in range(warmup):
        call()
    samples: list[float] = []
    end = time.monotonic() + seconds
    while not samples or time.monotonic() < end:
        started = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - started) / 1e6)
    return samples
