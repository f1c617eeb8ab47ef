"""Confidence intervals of a share and of a paired difference, and the exact test of McNemar."""

from __future__ import annotations

import math
import sys
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_resnet.core.statistics import (
    Z95,
    PairedDifference,
    binomial_tail,
    is_significant,
    mcnemar_exact,
    paired_drop_interval,
    wilson_interval,
)


@given(count=st.integers(1, 10**6), data=st.data())
def test_the_interval_holds_the_share_and_stays_a_share(count: int, data: st.DataObject) -> None:
    """0 <= low <= hits / count <= high <= 1, whatever the counts."""
    hits = data.draw(st.integers(0, count))
    low, high = wilson_interval(hits, count)
    assert 0 <= low <= hits / count + 1e-12
    assert hits / count - 1e-12 <= high <= 1
    assert high > low


@given(hits=st.integers(1, 50), factor=st.integers(2, 100))
def test_more_images_narrow_it(hits: int, factor: int) -> None:
    """The same share of more images has a narrower interval."""
    few, many = wilson_interval(hits, 100), wilson_interval(hits * factor, 100 * factor)
    assert many[1] - many[0] < few[1] - few[0]


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(8, 10, 0.4901, 0.9433), (0, 10, 0.0, 0.2775), (385, 500, 0.7311, 0.8048)]
)
def test_known_intervals(hits: int, count: int, low: float, high: float) -> None:
    """Published values of the Wilson interval."""
    assert wilson_interval(hits, count) == pytest.approx((low, high), abs=1e-4)


def test_it_is_symmetric() -> None:
    """Hits and misses are treated alike."""
    low, high = wilson_interval(30, 100)
    assert wilson_interval(70, 100) == pytest.approx((1 - high, 1 - low))


@given(only_a=st.integers(0, 300), only_b=st.integers(0, 300))
def test_mcnemar_is_twice_the_smaller_tail(only_a: int, only_b: int) -> None:
    """The p-value is the sum over whole numbers, at most 1, and it does not matter which network is called a."""
    count = only_a + only_b
    tail = sum(math.comb(count, hits) for hits in range(min(only_a, only_b) + 1))
    expected = min(Fraction(1), Fraction(2 * tail, 2**count))
    assert mcnemar_exact(only_a, only_b) == pytest.approx(float(expected), rel=1e-12)
    assert mcnemar_exact(only_a, only_b) == mcnemar_exact(only_b, only_a)


def exact_p(only_a: int, only_b: int) -> Fraction:
    """The same p-value in whole numbers: the sum of all binomial coefficients of the smaller tail."""
    few, count = min(only_a, only_b), only_a + only_b
    tail = coefficient = math.comb(count, few)
    for hits in range(few, 0, -1):
        coefficient = coefficient * hits // (count - hits + 1)
        tail += coefficient
    return min(Fraction(1), Fraction(2 * tail, 2**count))


@settings(max_examples=50, deadline=None)  # the exact reference takes long, not the function
@given(only_a=st.integers(0, 3000), only_b=st.integers(0, 3000))
@example(only_a=63, only_b=64)
@example(only_a=64, only_b=64)
@example(only_a=17_000, only_b=17_000)
@example(only_a=16_500, only_b=17_500)
def test_mcnemar_is_exact_for_many_images(only_a: int, only_b: int) -> None:
    """Thousands of images on which the two differ give the exact value too, to double precision."""
    expected = float(exact_p(only_a, only_b))
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected, rel=1e-12, abs=sys.float_info.min)


@given(st.floats(0, 1))
def test_one_level_decides_significance(p: float) -> None:
    """A p-value is significant below 0.05, and a difference by its p-value alone."""
    assert is_significant(p) == (p < 0.05)
    assert PairedDifference(1.0, (-1.0, 3.0), p, 100).significant == is_significant(p)


@given(only_a=st.integers(0, 20_000), only_b=st.integers(0, 20_000))
def test_a_p_value_is_a_probability(only_a: int, only_b: int) -> None:
    """0 < p <= 1 for tens of thousands of images too, and one more image on the larger side never raises it."""
    p = mcnemar_exact(only_a, only_b)
    assert 0 < p <= 1
    more = (only_a + 1, only_b) if only_a >= only_b else (only_a, only_b + 1)
    assert mcnemar_exact(*more) <= p * (1 + 1e-9)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (1, 1, 1.0), (0, 1, 1.0), (0, 5, 0.0625), (1, 7, 0.070313), (12, 2, 0.012939), (6, 16, 0.052479)],
)
def test_known_p_values(only_a: int, only_b: int, p: float) -> None:
    """Textbook tables: Armitage and Berry's two media (12, 2), the two of Fagerland, Lydersen and Laake (1, 7) and (6, 16)."""
    assert mcnemar_exact(only_a, only_b) == pytest.approx(p, abs=1e-6)


def test_a_vanishing_p_value_is_still_above_zero() -> None:
    """A p-value below the smallest float is returned as that float."""
    assert mcnemar_exact(0, 5000) == math.ulp(0.0) < sys.float_info.min


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    """Numbers of images that only one network gets right, that only the other gets right, and of all images."""
    count = draw(st.integers(1, 60_000))
    only_a = draw(st.integers(0, count))
    return only_a, draw(st.integers(0, count - only_a)), count


@given(tables())
def test_the_interval_of_a_drop_holds_the_drop(table: tuple[int, int, int]) -> None:
    """-1 <= low <= drop <= high <= 1, with a positive width, and swapping the networks mirrors the interval."""
    only_a, only_b, count = table
    low, high = paired_drop_interval(only_a, only_b, count)
    assert -1 <= low <= (only_a - only_b) / count <= high <= 1
    assert low < high
    assert paired_drop_interval(only_b, only_a, count) == (-high, -low)


@given(tables())
def test_it_leaves_out_zero_where_mcnemars_statistic_does(table: tuple[int, int, int]) -> None:
    """Zero is outside exactly if (a - b)² / (a + b) exceeds the squared quantile."""
    only_a, only_b, count = table
    low, high = paired_drop_interval(only_a, only_b, count)
    outside = (only_a - only_b) ** 2 > Z95**2 * (only_a + only_b)
    assert (low > 0 or high < 0) == outside


@given(tables(), st.integers(2, 100))
def test_more_images_narrow_the_drop(table: tuple[int, int, int], factor: int) -> None:
    """The same shares of more images give a narrower interval of their difference."""
    few = paired_drop_interval(*table)
    many = paired_drop_interval(*(factor * number for number in table))
    assert many[1] - many[0] < few[1] - few[0]


@pytest.mark.parametrize(
    ("only_a", "only_b", "count", "low", "high"),
    [(1, 7, 21, -0.517232, -0.026003), (6, 16, 161, -0.1240, -0.0054)],
)
def test_known_intervals_of_a_drop(only_a: int, only_b: int, count: int, low: float, high: float) -> None:
    """Tango's interval of the two tables of Fagerland, Lydersen and Laake (2014), as two packages of R give it."""
    assert paired_drop_interval(only_a, only_b, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("count", [1, 20, 50, 500, 50_000])
def test_networks_that_never_differ_have_an_interval(count: int) -> None:
    """Without a discordant image the bounds are Wilson's for 0 of ``count``: no evidence is no proof of equality."""
    low, high = paired_drop_interval(0, 0, count)
    assert high == pytest.approx(wilson_interval(0, count)[1], abs=1e-12)
    assert low == -high


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_networks_that_always_differ_have_an_interval(count: int) -> None:
    """FP32 right and INT8 wrong on every image: the upper bound is 1, and the lower bound follows from Wilson's."""
    low, high = paired_drop_interval(count, 0, count)
    assert high == 1
    assert low == pytest.approx(2 * wilson_interval(count, count)[0] - 1, abs=1e-12)


@pytest.mark.parametrize(("only_a", "only_b"), [(0.05, 0.05), (0.10, 0.02), (0.02, 0.01)])
def test_it_covers_what_it_says(only_a: float, only_b: float) -> None:
    """Over all outcomes of 60 images, weighed by their probability, the true drop is inside in 93 to 99.5 of a hundred."""
    count, neither, covered = 60, 1 - only_a - only_b, 0.0
    for a in range(31):
        for b in range(31 - a):
            low, high = paired_drop_interval(a, b, count)
            if low <= only_a - only_b <= high:
                ways = math.comb(count, a) * math.comb(count - a, b)
                covered += ways * only_a**a * only_b**b * neither ** (count - a - b)
    assert 0.93 <= covered <= 0.995


@given(count=st.integers(1, 60), tenths=st.integers(1, 9), data=st.data())
def test_the_binomial_tail_equals_the_sum_of_exact_terms(count: int, tenths: int, data: st.DataObject) -> None:
    """On both sides of the expectation, and 1 for no hit at all."""
    hits, share = data.draw(st.integers(0, count)), Fraction(tenths, 10)
    exact = sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(hits, count + 1))
    assert binomial_tail(hits, count, tenths / 10) == pytest.approx(float(exact), rel=1e-9)


def test_the_binomial_tail_of_large_counts_is_finite() -> None:
    """A result far from chance on fifty thousand images is as good as impossible, and one at chance is usual."""
    assert binomial_tail(40_000, 50_000, 0.001) == pytest.approx(0, abs=1e-300)
    assert 0.4 < binomial_tail(50, 50_000, 0.001) < 0.6
    assert binomial_tail(1, 50_000, 0.5) == pytest.approx(1)
