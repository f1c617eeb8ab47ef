"""histogram.py: properties of the counts on generated arrays."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_resnet.core.errors import CalibrationError
from edge_resnet.quantization.histogram import BINS, CHUNK, MIN_LIMIT, AbsHistogram

Floats = npt.NDArray[np.float32]
#: Any finite float32, denormals and both zeros included.
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
#: What activations look like: no more than six decades, many zeros.
USUAL = st.one_of(st.just(0.0), st.floats(-1000, 1000, width=32).filter(lambda x: abs(x) > 1e-3))
VALUES = arrays(np.float32, st.integers(1, 120), elements=ANY) | arrays(np.float32, st.integers(1, 120), elements=USUAL)


def of(*parts: Floats) -> AbsHistogram:
    histogram = AbsHistogram()
    for part in parts:
        histogram.add(part)
    return histogram


def state(histogram: AbsHistogram) -> tuple[list[int], float, float, bool]:
    return histogram.counts.tolist(), histogram.limit, histogram.amax, histogram.signed


def counted_at_once(values: Floats, limit: float) -> npt.NDArray[np.int64]:
    """The counts by definition, in float64: bin i holds i <= |x| * 2048 / limit < i + 1."""
    place = np.floor(np.abs(values.astype(np.float64)) * (BINS / limit)).astype(int)
    return np.bincount(place.ravel(), minlength=BINS)


@given(VALUES, st.data())
def test_any_order_and_any_batching_gives_the_same_counts(values: Floats, data: st.DataObject) -> None:
    """Shuffled and cut anywhere, empty pieces too, the same values give the same counts, limit, amax and sign."""
    shuffled = values[data.draw(st.permutations(range(len(values))))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=8)))
    assert state(of(*np.split(shuffled, cuts))) == state(of(values))


@given(VALUES)
def test_counts_follow_their_definition(values: Floats) -> None:
    """Added one by one, with every doubling on the way, the counts equal those with the final limit from the start."""
    histogram = of(*values.reshape(-1, 1))
    if histogram.limit == 0:
        assert not values.any()
        assert histogram.counts[0] == values.size
    else:
        assert np.array_equal(histogram.counts, counted_at_once(values, histogram.limit))


@given(VALUES)
def test_every_value_is_counted_once_and_the_extremes_are_exact(values: Floats) -> None:
    """The counts sum to the number of values; amax is the largest |x| to the bit; signed says whether any is negative."""
    histogram = of(values)
    assert histogram.counts.sum() == values.size
    assert histogram.amax == np.abs(values).max()
    assert histogram.signed is bool((values < 0).any())


@given(VALUES)
def test_the_limit_is_the_next_power_of_two(values: Floats) -> None:
    """The limit is a power of two above amax and at most twice it, the smallest limit aside; 0 for zeros alone."""
    histogram = of(values)
    if histogram.amax == 0:
        assert histogram.limit == 0
        return
    assert math.frexp(histogram.limit)[0] == 0.5
    assert histogram.amax < histogram.limit
    assert histogram.limit <= max(2 * histogram.amax, MIN_LIMIT)


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    """A histogram holds 2048 counts of eight bytes, however many values are counted."""
    histogram = AbsHistogram()
    for exponent in range(-30, 31):
        histogram.add(np.full(10_000, 2.0**exponent, np.float32))
    assert histogram.counts.shape == (BINS,)
    assert histogram.counts.nbytes == 8 * BINS
    assert histogram.counts.sum() == 610_000


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7])
@pytest.mark.parametrize("lowest", [-3, 0])
def test_arrays_longer_than_a_chunk_are_counted_whole(size: int, lowest: float) -> None:
    """The piecewise count equals the count at once on either side of a chunk's edge, with and without negative values."""
    values = np.random.default_rng(size).uniform(lowest, 3, size).astype(np.float32)
    values[-1] = 2.5
    histogram = of(values)
    assert np.array_equal(histogram.counts, counted_at_once(values, histogram.limit))


@pytest.mark.parametrize("exponent", [-99, -20, -1, 0, 1, 20, 126])
def test_values_at_a_power_of_two_lie_in_the_upper_half(exponent: int) -> None:
    """2**k doubles the limit to 2**(k+1) and starts its middle bin; the float just below it does neither."""
    at = of(np.array([2.0**exponent], np.float32))
    assert at.limit == 2.0 ** (exponent + 1)
    assert at.counts[BINS // 2] == 1
    below = of(np.nextafter(np.array([2.0**exponent], np.float32), np.float32(0)))
    assert below.limit == 2.0**exponent
    assert below.counts[BINS - 1] == 1


def test_denormal_and_huge_values_are_counted() -> None:
    """From the smallest denormal to the largest float32, alone or together, nothing overflows or is lost."""
    info = np.finfo(np.float32)
    smallest, largest = np.array([info.smallest_subnormal, -info.tiny]), np.array([info.max, -info.max])
    tiny = of(smallest.astype(np.float32))
    assert tiny.limit == MIN_LIMIT
    assert tiny.counts[0] == 2
    assert tiny.amax == info.tiny
    both = of(smallest.astype(np.float32), largest.astype(np.float32))
    assert both.limit == 2.0**128
    assert (both.counts[0], both.counts[-1]) == (2, 2)
    assert both.amax == info.max


def test_zeros_before_the_first_value_count() -> None:
    """A tensor that is zero at first keeps these zeros in its first bin."""
    histogram = of(np.zeros(9999, np.float32), np.array([5.0], np.float32))
    assert histogram.counts[0] == 9999
    assert histogram.limit == 8


@pytest.mark.parametrize("values", [np.zeros(5), -np.zeros(5), np.empty(0), np.empty((0, 4))])
def test_zeros_of_either_sign_have_no_limit(values: npt.NDArray[np.float64]) -> None:
    """Zeros alone, or no values at all, are counted, leave limit and amax at 0 and are not signed."""
    histogram = of(values.astype(np.float32))
    assert state(histogram) == ([values.size] + [0] * (BINS - 1), 0.0, 0.0, False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_values_that_are_not_finite_are_refused(bad: float, place: int) -> None:
    """A NaN or an infinity anywhere raises and leaves the counts as they were."""
    histogram = of(np.array([1, 2], np.float32))
    before = state(histogram)
    values = np.arange(7, dtype=np.float32)
    values[place] = bad
    with pytest.raises(CalibrationError, match="not finite"):
        histogram.add(values)
    assert state(histogram) == before


@given(VALUES, st.integers(1, 5))
def test_a_sample_is_counted_and_the_largest_of_the_whole_kept(values: Floats, step: int) -> None:
    """With a sample and the largest value of the whole, the counts are the sample's, and limit and amax cover that value."""
    sample = AbsHistogram()
    sample.add(values[::step], values.max(keepdims=True))
    assert sample.counts.sum() == values[::step].size
    assert sample.amax == max(values.max(), np.abs(values[::step]).max())
    assert sample.limit == 0 or np.array_equal(sample.counts, counted_at_once(values[::step], sample.limit))


@pytest.mark.parametrize(("values", "largest"), [([1, np.nan], 2), ([1, 2], np.nan), ([1, 2], np.inf), ([1, -np.inf], 2)])
def test_a_sample_that_is_not_finite_is_refused(values: list[float], largest: float) -> None:
    """Both for a sample and for a largest value that is not finite."""
    with pytest.raises(CalibrationError, match="not finite"):
        AbsHistogram().add(np.array(values, np.float32), np.array([largest], np.float32))


def test_the_memory_layout_does_not_matter() -> None:
    """Transposed, reversed and strided views count as their copies do, and are not written to."""
    base = np.random.default_rng(0).normal(size=(6, 8, 10, 4)).astype(np.float32)
    kept = base.copy()
    for view in (base.transpose(0, 3, 1, 2), base[::-1, :, ::-2], base[:, 1:5, 2:3]):
        assert not view.flags.c_contiguous
        assert state(of(view)) == state(of(np.ascontiguousarray(view).ravel()))
    assert np.array_equal(base, kept)
