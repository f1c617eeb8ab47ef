"""The interval of a share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.statistics import wilson_interval


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
    """Published values of Wilson's interval."""
    assert wilson_interval(hits, count) == pytest.approx((low, high), abs=1e-4)


def test_it_is_symmetric() -> None:
    """Hits and misses are treated alike."""
    low, high = wilson_interval(30, 100)
    assert wilson_interval(70, 100) == pytest.approx((1 - high, 1 - low))
