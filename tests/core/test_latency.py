"""Latencies: one definition of a percentile, and the measurement of a call."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.statistics import measure, percentile, summarise

SAMPLES = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=300)


@given(samples=SAMPLES)
def test_percentiles_rise(samples: list[float]) -> None:
    """p50 <= p90 <= p99 <= p99.9 <= max, each of them one of the samples, the mean between the ends."""
    stats = summarise(samples)
    row = [stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.p999_ms, stats.max_ms]
    assert row == sorted(row)
    assert set(row) <= set(samples)
    assert stats.count == len(samples)
    assert min(samples) - 1e-9 <= stats.mean_ms <= max(samples) * (1 + 1e-12) + 1e-9


@given(samples=SAMPLES, seed=st.integers(0, 99))
def test_the_order_of_samples_does_not_matter(samples: list[float], seed: int) -> None:
    """A shuffled list has the same summary, the mean included."""
    shuffled = samples.copy()
    random.Random(seed).shuffle(shuffled)
    assert summarise(shuffled) == summarise(samples)


@given(samples=SAMPLES, tenths=st.integers(1, 1000))
def test_the_percentile_is_the_nearest_rank(samples: list[float], tenths: int) -> None:
    """The smallest sample at or below which that share of the samples lies, computed without rounding."""
    ordered = sorted(samples)
    value = percentile(ordered, tenths / 10)
    rank = -(-tenths * len(ordered) // 1000)  # exact, in integers
    assert value == ordered[rank - 1]


def test_a_known_row() -> None:
    """Of 1 to 1000, p50 is 500, p90 900, p99 990 and p99.9 999: no share is rounded up by a float."""
    stats = summarise([float(value) for value in range(1, 1001)])
    assert (stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.p999_ms, stats.max_ms) == (500, 900, 990, 999, 1000)
    assert stats.mean_ms == 500.5


def test_numpy_agrees() -> None:
    """numpy calls the same definition inverted_cdf."""
    samples = np.random.default_rng(0).exponential(5, 777)
    for share in (50, 90, 99):
        assert percentile(sorted(samples), share) == np.percentile(samples, share, method="inverted_cdf")


def test_nothing_is_summarised_as_nothing() -> None:
    """No sample, no latency: all zero, and no error."""
    stats = summarise([])
    assert (stats.count, stats.mean_ms, stats.max_ms) == (0, 0, 0)


def test_measuring_leaves_the_warm_up_out() -> None:
    """Each call after the warm-up is one sample, in milliseconds."""
    calls: list[None] = []

    def work() -> None:
        calls.append(None)
        time.sleep(0.002)

    samples = measure(work, warmup=3, seconds=0.05)
    assert len(calls) == len(samples) + 3
    assert min(samples) >= 2
    assert len(samples) >= 2


def test_measuring_gives_at_least_one_sample() -> None:
    """Even if no time is left."""
    assert len(measure(lambda: None, warmup=0, seconds=0)) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_the_call_raises_is_raised(error: type[BaseException]) -> None:
    """A failing call is not a latency."""

    def fail() -> None:
        raise error

    with pytest.raises(error):
        measure(fail, warmup=0, seconds=1)
