"""Intervals of percentiles and rates: properties for any samples, and coverage where the true value is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.statistics import percentile
from edge_resnet.measurement.bench.intervals import percentile_interval, rate_interval

SAMPLES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=400)
SHARES = st.sampled_from([50, 90, 99, 99.9])


@given(samples=SAMPLES, share=SHARES)
def test_the_percentile_lies_inside(samples: list[float], share: float) -> None:
    """Low <= percentile <= high, and both are samples."""
    low, high, _ = percentile_interval(samples, share)
    assert low <= percentile(sorted(samples), share) <= high
    assert {low, high} <= set(samples)


@given(samples=SAMPLES, share=SHARES, factor=st.sampled_from([0.25, 2.0, 1024.0]))
def test_units_do_not_matter(samples: list[float], share: float, factor: float) -> None:
    """Samples in another unit have the same interval in that unit (powers of two, so that nothing is rounded)."""
    low, high, certain = percentile_interval(samples, share)
    assert percentile_interval([factor * sample for sample in samples], share) == (factor * low, factor * high, certain)


@given(samples=SAMPLES, units=st.integers(1, 64))
def test_the_rate_lies_inside(samples: list[float], units: int) -> None:
    """0 < low <= units per second <= high, all finite."""
    low, high = rate_interval(samples, units)
    rate = units * len(samples) / math.fsum(samples)
    assert 0 < low <= rate * (1 + 1e-12)
    assert rate <= high * (1 + 1e-12)
    assert math.isfinite(high)


@given(value=st.floats(1e-3, 1e3), count=st.integers(2, 200), units=st.integers(1, 64))
def test_constant_samples_have_no_spread(value: float, count: int, units: int) -> None:
    """Their interval has no width."""
    assert percentile_interval([value] * count, 90)[:2] == (value, value)
    assert rate_interval([value] * count, units) == pytest.approx((units / value, units / value))


@pytest.mark.parametrize(("count", "share", "certain"), [(100, 50, True), (100, 90, True), (100, 99, False), (662, 99, True)])
def test_too_few_for_a_percentile(count: int, share: float, certain: bool) -> None:
    """A hundred queries are enough for a p90 and too few for a p99; MLPerf's 662 are enough."""
    samples = np.random.default_rng(0).permutation(count).astype(float).tolist()
    assert percentile_interval(samples, share)[2] is certain


@pytest.mark.parametrize(("share", "count"), [(90, 1024), (99, 2000)])
def test_independent_samples_are_covered(share: float, count: int) -> None:
    """In at least 93 % of 400 runs the interval holds the true percentile, and its median width is below half of that."""
    rng = np.random.default_rng(1)
    truth = -math.log(1 - share / 100)
    intervals = [percentile_interval(rng.exponential(1, count).tolist(), share) for _ in range(400)]
    assert np.mean([low <= truth <= high for low, high, _ in intervals]) >= 0.93
    assert np.median([high - low for low, high, _ in intervals]) < truth / 2


def test_bursts_widen_it() -> None:
    """Slow queries in bursts carry less information than as many single ones: the interval is wider, and still covers."""
    rng = np.random.default_rng(2)
    covered, wider = [], []
    for _ in range(200):
        level = np.repeat(rng.exponential(1, 100), 20)
        burst = (level + rng.normal(0, 0.01, 2000)).tolist()
        low, high, _ = percentile_interval(burst, 90)
        alone_low, alone_high, _ = percentile_interval(rng.permutation(burst).tolist(), 90)
        covered.append(low <= math.log(10) <= high)
        wider.append((high - low) / (alone_high - alone_low))
    assert np.mean(covered) >= 0.9
    assert np.median(wider) > 2


@pytest.mark.parametrize("share", [90, 99])
def test_two_runs_of_one_machine_agree(share: float) -> None:
    """For autocorrelated latencies from independent runs the intervals of 95 % of pairs overlap."""
    rng = np.random.default_rng(4)

    def run() -> list[float]:
        level = np.zeros(2000)
        steps = rng.normal(0, 1, 2000)
        level[0] = steps[0]
        for index in range(1, 2000):
            level[index] = 0.9 * level[index - 1] + math.sqrt(1 - 0.81) * steps[index]
        return np.exp(0.1 * level).tolist()  # type: ignore[no-any-return]

    pairs = [(percentile_interval(run(), share), percentile_interval(run(), share)) for _ in range(100)]
    assert np.mean([max(a[0], b[0]) <= min(a[1], b[1]) for a, b in pairs]) >= 0.95


def test_rates_are_covered() -> None:
    """In at least 93 % of 400 offline runs the interval holds the true rate."""
    rng = np.random.default_rng(3)
    intervals = [rate_interval(rng.gamma(4, 0.25, 120).tolist(), 8) for _ in range(400)]
    assert np.mean([low <= 8 <= high for low, high in intervals]) >= 0.93


def test_one_batch_has_no_spread() -> None:
    """The interval of a single sample is its rate."""
    assert rate_interval([0.5], 4) == (8, 8)
