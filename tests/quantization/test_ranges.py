"""ranges.py: properties of every method on generated arrays, and each compared with its definition written as loops."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import CalibMethod, QuantRecipe
from edge_resnet.quantization.histogram import BINS, MIN_LIMIT, AbsHistogram
from edge_resnet.quantization.ranges import METHODS, MIN_BINS, read_amax

Floats = npt.NDArray[np.float32]
MAX, PERCENTILE, MSE, ENTROPY = (QuantRecipe(method=method) for method in ("max", "percentile", "mse", "entropy"))
RECIPES = (MAX, PERCENTILE, replace(PERCENTILE, percentile=99), MSE, ENTROPY)
#: Any finite float32, denormals and both zeros included.
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
#: What activations look like: no more than six decades, many zeros.
USUAL = st.one_of(st.just(0.0), st.floats(-1000, 1000, width=32).filter(lambda x: abs(x) > 1e-3))
VALUES = arrays(np.float32, st.integers(1, 120), elements=ANY) | arrays(np.float32, st.integers(1, 120), elements=USUAL)
SAMPLES = {
    "half-normal": lambda rng: np.abs(rng.standard_normal(200_000)),
    "signed normal": lambda rng: rng.standard_normal(200_000),
    "exponential": lambda rng: rng.exponential(size=200_000),
    "heavy tail": lambda rng: rng.standard_t(4, 200_000),
    "two hills": lambda rng: np.concatenate([rng.standard_normal(190_000), rng.normal(9, 0.3, 10_000)]),
    "uniform": lambda rng: rng.uniform(0, 3, 200_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(200_000), 0),
    "few": lambda rng: rng.standard_normal(300),
}


def of(*parts: npt.NDArray[np.floating]) -> AbsHistogram:
    histogram = AbsHistogram()
    for part in parts:
        histogram.add(part.astype(np.float32))
    return histogram


def sample(name: str) -> npt.NDArray[np.float64]:
    return np.asarray(SAMPLES[name](np.random.default_rng(3)), np.float64)


def counts_of(histogram: AbsHistogram) -> list[float]:
    """The counts that mse and entropy use: the first bin's count is at most its neighbour's."""
    counts = [float(count) for count in histogram.counts]
    return [min(counts[0], counts[1]), *counts[1:]]


def squared_error(histogram: AbsHistogram, amax: float) -> float:
    """Squared error of symmetric int8 with this clip: the integral over each bin, piecewise between the edges of steps."""
    width, step, total = histogram.limit / BINS, amax / 127, 0.0
    for place, count in enumerate(counts_of(histogram)):
        if count:
            low, high = place * width, (place + 1) * width
            inner = [b for k in range(127) if low < (b := (k + 0.5) * step) < high]
            for left, right in zip([low, *inner], [*inner, high], strict=True):
                level = min(math.floor((left + right) / 2 / step + 0.5), 127) * step
                total += count / width * ((right - level) ** 3 - (left - level) ** 3) / 3
    return total


def divergence(histogram: AbsHistogram, kept: int) -> float:
    """KL(P, Q) of the first ``kept`` bins as in NVIDIA's slides; infinite if P has mass where Q has none."""
    counts = counts_of(histogram)
    p = counts[:kept]
    p[-1] += sum(counts[kept:])
    levels: dict[int, list[int]] = {}
    for place in range(kept):
        if counts[place]:
            levels.setdefault(place * 128 // kept, []).append(place)
    q = [0.0] * kept
    for places in levels.values():
        for place in places:
            q[place] = sum(counts[i] for i in places) / len(places)
    p_sum, q_sum = sum(p), sum(q)
    if any(a and not b for a, b in zip(p, q, strict=True)):
        return math.inf
    return sum(a / p_sum * math.log((a / p_sum) / (b / q_sum)) for a, b in zip(p, q, strict=True) if a)


def kept_bins(histogram: AbsHistogram, amax: float) -> int:
    """The number of bins that a clip keeps; the largest value may lie on the lower edge of its bin."""
    place = amax * BINS / histogram.limit
    return math.floor(place) + 1 if amax == histogram.amax else round(place)


@given(VALUES, st.floats(50, 100, exclude_min=True))
def test_a_range_is_positive_and_never_above_the_largest_value(values: Floats, percentile: float) -> None:
    """0 < amax <= max |x| with every method; 1.0 if all values are zero."""
    largest = float(np.abs(values).max())
    for method in METHODS:
        amax = read_amax(of(values), QuantRecipe(method=method, percentile=percentile))
        assert amax == 1.0 if largest == 0 else 0 < amax <= largest


@given(VALUES, st.integers(-30, 30))
def test_a_power_of_two_passes_through(values: Floats, exponent: int) -> None:
    """Values times a power of two have exactly that multiple of the range, with every method."""
    with np.errstate(over="ignore", under="ignore"):
        scaled = values * np.float32(2.0**exponent)
    largest = np.abs(values).max()
    # Below the smallest limit and in denormals the counts of the scaled values are others.
    assume(np.isfinite(scaled).all() and all(v == 0 or v > 2 * MIN_LIMIT for v in (largest, np.abs(scaled).max())))
    assume(np.array_equal(scaled / np.float32(2.0**exponent), values))
    for recipe in RECIPES:
        if largest:
            assert read_amax(of(scaled), recipe) == read_amax(of(values), recipe) * 2.0**exponent


@given(VALUES, st.integers(2, 1000))
def test_seeing_everything_again_changes_nothing(values: Floats, times: int) -> None:
    """Counts that are all ``times`` as large give the same range: only shares matter."""
    once, often = of(values), of(values)
    often.counts *= times
    for recipe in RECIPES:
        assert read_amax(often, recipe) == pytest.approx(read_amax(once, recipe), rel=1e-12)


@given(VALUES, st.floats(50, 100, exclude_min=True))
@example(np.arange(1, 101, dtype=np.float32), 99.0)
def test_a_percentile_covers_its_share_and_one_bin_less_does_not(values: Floats, percentile: float) -> None:
    """At least the requested share of |x| lies within the range, and less than it below the range minus one bin."""
    histogram = of(values)
    amax = read_amax(histogram, replace(PERCENTILE, percentile=percentile))
    if histogram.amax == 0:
        return
    magnitude = np.abs(values.astype(np.float64))
    wanted = values.size * percentile / 100
    assert (magnitude <= amax).sum() >= wanted
    assert (magnitude < amax - histogram.limit / BINS).sum() < wanted


@given(VALUES, st.lists(st.floats(50, 100, exclude_min=True), min_size=2, max_size=6))
def test_a_larger_percentile_never_gives_a_smaller_range(values: Floats, percentiles: list[float]) -> None:
    """The range rises with the percentile."""
    histogram = of(values)
    ranges = [read_amax(histogram, replace(PERCENTILE, percentile=p)) for p in sorted(percentiles)]
    assert ranges == sorted(ranges)


@given(VALUES)
def test_percentile_100_clips_nothing(values: Floats) -> None:
    """The hundredth percentile is the largest value itself."""
    histogram = of(values)
    assert read_amax(histogram, replace(PERCENTILE, percentile=100)) == read_amax(histogram, MAX)


def test_a_percentile_of_a_known_distribution() -> None:
    """Of |x| uniform in [0, 3), the 90th percentile is 2.7 and the 99.99th cuts off a lone outlier, up to a bin."""
    values = np.linspace(0, 3, 100_000, endpoint=False, dtype=np.float32)
    assert read_amax(of(values), replace(PERCENTILE, percentile=90)) == pytest.approx(2.7, abs=4 / BINS)
    with_outlier = of(values, np.array([-60], np.float32))
    assert read_amax(with_outlier, MAX) == 60
    assert read_amax(with_outlier, replace(PERCENTILE, percentile=99.99)) == pytest.approx(3, abs=64 / BINS)


def test_zeros_weigh_in_a_percentile() -> None:
    """A percentile counts all values, including the zeros of a ReLU."""
    histogram = of(np.zeros(9999), np.array([5.0]))
    assert read_amax(histogram, replace(PERCENTILE, percentile=99)) == 8 / BINS


@pytest.mark.parametrize("name", SAMPLES)
def test_mse_is_the_least_squared_error(name: str) -> None:
    """No clip at any bin's edge, nor the absence of one, has a smaller error by the definition than the result."""
    histogram = of(sample(name))
    found = squared_error(histogram, read_amax(histogram, MSE))
    width = histogram.limit / BINS
    tried = [*(width * edge for edge in range(MIN_BINS, int(histogram.amax / width) + 1, 29)), histogram.amax]
    tried += [read_amax(histogram, MSE) + width * near for near in (-2, -1, 1, 2)]
    assert found <= min(squared_error(histogram, amax) for amax in tried if amax <= histogram.amax) * (1 + 1e-9)


@given(arrays(np.float32, st.integers(1, 40), elements=USUAL))
@settings(max_examples=15)
def test_mse_is_the_least_squared_error_of_few_values(values: Floats) -> None:
    """The same if most bins are empty."""
    histogram = of(values)
    assume(histogram.amax > 0)
    width = histogram.limit / BINS
    found = squared_error(histogram, read_amax(histogram, MSE))
    tried = [*(width * edge for edge in range(MIN_BINS, int(histogram.amax / width), 61)), histogram.amax]
    assert found <= min(squared_error(histogram, amax) for amax in tried) * (1 + 1e-9)


@pytest.mark.parametrize("name", SAMPLES)
def test_mse_predicts_the_error_of_the_values_themselves(name: str) -> None:
    """The result loses at most 1 % more on the values, quantized one by one, than the best of 200 clips."""
    values = sample(name)

    def error(amax: float) -> float:
        return float(((values - np.clip(np.rint(values / amax * 127), -127, 127) * amax / 127) ** 2).sum())

    largest = float(np.abs(values).max())
    best = min(error(largest * share) for share in np.linspace(0.1, 1, 200))
    assert error(read_amax(of(values), MSE)) <= best * (1.01 if values.size > 1000 else 1.15)


@pytest.mark.parametrize("name", SAMPLES)
def test_entropy_is_the_least_divergence(name: str) -> None:
    """The divergence by its definition is smallest at the result, and no larger clip equals it."""
    histogram = of(sample(name))
    found = kept_bins(histogram, read_amax(histogram, ENTROPY))
    least = divergence(histogram, found)
    around = {found + near for near in range(-3, 4)} | set(range(MIN_BINS, BINS + 1, 17))
    others = {kept: divergence(histogram, kept) for kept in around if MIN_BINS <= kept <= kept_bins(histogram, histogram.amax)}
    assert least <= min(others.values()) + 1e-9
    assert all(value > least for kept, value in others.items() if kept > found)


@given(arrays(np.float32, st.integers(1, 40), elements=USUAL))
@settings(max_examples=15)
def test_entropy_is_the_least_divergence_of_few_values(values: Floats) -> None:
    """The same if most bins are empty and many clips are equal: the largest of them is taken."""
    histogram = of(values)
    assume(histogram.amax > 0)
    found = kept_bins(histogram, read_amax(histogram, ENTROPY))
    clips = [int(place) + 1 for place in np.flatnonzero(histogram.counts) if place + 1 >= MIN_BINS]
    tried = {kept: divergence(histogram, kept) for kept in clips}
    assert found in clips
    assert tried[found] <= min(tried.values()) + 1e-9
    assert all(value > tried[found] + 1e-13 for kept, value in tried.items() if kept > found)


@pytest.mark.parametrize("recipe", [MSE, ENTROPY], ids=["mse", "entropy"])
@pytest.mark.parametrize("name", ["half-normal", "signed normal", "exponential", "heavy tail", "relu"])
def test_a_thin_tail_is_clipped(name: str, recipe: QuantRecipe) -> None:
    """If a few values are outliers, both methods spend the steps on the others."""
    histogram = of(sample(name))
    assert 0.05 * histogram.amax < read_amax(histogram, recipe) < 0.95 * histogram.amax


@pytest.mark.parametrize("recipe", [MSE, ENTROPY], ids=["mse", "entropy"])
def test_a_uniform_tensor_is_not_clipped(recipe: QuantRecipe) -> None:
    """Values spread evenly need the whole range: the last integer is at most one step below the largest."""
    histogram = of(sample("uniform"))
    assert histogram.amax * 126 / 127 <= read_amax(histogram, recipe) <= histogram.amax


@pytest.mark.parametrize("recipe", [MSE, ENTROPY], ids=["mse", "entropy"])
def test_the_zeros_of_a_relu_change_nothing(recipe: QuantRecipe) -> None:
    """A hundred times as many exact zeros as values do not change the range."""
    values = np.abs(sample("half-normal"))
    with_zeros = of(values, np.zeros(100 * values.size))
    assert read_amax(with_zeros, recipe) == pytest.approx(read_amax(of(values), recipe), rel=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.alone
def test_a_range_is_read_in_milliseconds(method: CalibMethod) -> None:
    """The fastest of five readings of a full histogram takes at most 60 ms, so that its cost in a sweep is negligible."""
    histogram = of(sample("half-normal"), np.linspace(0, 7.9, 200_000))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        read_amax(histogram, QuantRecipe(method=method))
        times.append(time.perf_counter() - started)
    assert min(times) < 0.06


@pytest.mark.parametrize("size", [0, 1, 5])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_zeros_gives_a_range_of_one(method: CalibMethod, size: int) -> None:
    """Zeros, or no values at all, give 1.0 with every method."""
    assert read_amax(of(np.zeros(size)), QuantRecipe(method=method)) == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_values_below_the_smallest_limit_have_a_range(method: CalibMethod) -> None:
    """Denormal values, which lie in the lowest bins of the smallest limit, give the largest of them with every method."""
    values = np.array([1e-40, 3e-39, 2e-38], np.float32)
    assert read_amax(of(values), QuantRecipe(method=method)) == values.max()


def test_auto_reads_no_range() -> None:
    """It is a choice among the methods; reading a range with it is an error that names it."""
    with pytest.raises(CalibrationError, match="auto") as caught:
        read_amax(of(np.ones(3)), QuantRecipe(method="auto"))
    assert "mse" in caught.value.hint


def test_every_method_of_a_recipe_is_there() -> None:
    """A recipe may name the methods that read ranges, and auto."""
    assert {*METHODS, "auto"} == set(get_args(CalibMethod))
