"""histogram.py: figures read off the counts equal those of the values, to within a bin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.quantization.histogram import BINS, AbsHistogram, clipped_energy, median_nonzero, point, share_above

Values = npt.NDArray[np.float32]


def filled(values: Values) -> AbsHistogram:
    """A histogram of these values."""
    histogram = AbsHistogram()
    histogram.add(values)
    return histogram


def drawn(seed: int, scale: float = 1.0) -> Values:
    """Absolute values of a normal distribution."""
    return (scale * np.abs(np.random.default_rng(seed).standard_normal(5000))).astype(np.float32)


@given(seed=st.integers(0, 99), share=st.floats(0.01, 1))
def test_a_point_is_the_quantile_to_a_bin(seed: int, share: float) -> None:
    """At least that share of the values lies below the point, and less one bin further down."""
    values = drawn(seed)
    histogram = filled(values)
    found, bin_width = point(histogram, share), histogram.limit / BINS
    assert (values < found).mean() >= share - 1e-9
    assert (values < found - bin_width).mean() < share


@given(seed=st.integers(0, 99), value=st.floats(0, 6))
def test_the_share_above_is_counted_by_whole_bins(seed: int, value: float) -> None:
    """Never more than lie above the value, and no fewer than lie one bin above it."""
    values = drawn(seed)
    histogram = filled(values)
    found = share_above(histogram, value)
    assert (values >= value + histogram.limit / BINS).mean() <= found <= (values >= value).mean()


def test_the_median_does_not_see_zeros() -> None:
    """Nine zeros for each value do not change the median of the nonzero values."""
    values = drawn(0)
    sparse = np.concatenate([values, np.zeros(9 * values.size, np.float32)])
    assert median_nonzero(filled(sparse)) == median_nonzero(filled(values))
    assert median_nonzero(filled(values)) == pytest.approx(np.median(values), abs=2 * filled(values).limit / BINS)


@given(seed=st.integers(0, 99), amax=st.floats(0.2, 4))
def test_the_clipped_energy_is_that_of_the_values(seed: int, amax: float) -> None:
    """The squared parts above the clip over all squares, with each bin's values at its centre."""
    values = drawn(seed).astype(np.float64)
    expected = (np.maximum(values - amax, 0) ** 2).sum() / (values**2).sum()
    assert clipped_energy(filled(values.astype(np.float32)), amax) == pytest.approx(expected, abs=2e-3)


@given(exponent=st.integers(-20, 20))
def test_a_power_of_two_changes_the_unit_alone(exponent: int) -> None:
    """Points scale with the values, shares and energies do not change, exactly."""
    factor = 2.0**exponent
    small, large = filled(drawn(3)), filled(drawn(3, factor))
    assert point(large, 0.99) == factor * point(small, 0.99)
    assert median_nonzero(large) == factor * median_nonzero(small)
    assert share_above(large, factor) == share_above(small, 1.0)
    assert clipped_energy(large, factor) == clipped_energy(small, 1.0)


def test_nothing_lies_above_the_largest() -> None:
    """At the largest value and beyond, nothing is above and nothing is clipped."""
    values = drawn(1)
    histogram = filled(values)
    for value in (histogram.amax, histogram.limit, 1e30, float("inf")):
        assert share_above(histogram, value) == 0
        assert clipped_energy(histogram, value) < 1e-6
    assert point(histogram, 1.0) >= histogram.amax


def test_a_dead_tensor_has_no_tail() -> None:
    """For zeros alone all figures are zero, and an empty histogram does not divide by zero."""
    for histogram in (filled(np.zeros(9, np.float32)), AbsHistogram()):
        assert (point(histogram, 0.5), median_nonzero(histogram)) == (0, 0)
        assert (share_above(histogram, 1.0), clipped_energy(histogram, 1.0)) == (0, 0)


def test_values_of_the_first_bin_alone_have_a_median() -> None:
    """If only the largest value lies outside the first bin, it is the median of the nonzero values."""
    values = np.full(1000, 1e-6, np.float32)
    values[0] = 1.0
    assert median_nonzero(filled(values)) == pytest.approx(1.0, rel=2 / BINS)
    assert share_above(filled(values), 1e-3) == pytest.approx(1e-3)
