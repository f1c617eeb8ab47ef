"""The Pareto front, and differences on the same images."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import answers, row

from edge_resnet.core.statistics import paired_difference
from edge_resnet.measurement.report.front import accuracy_drop, dominated_by, pareto_front, speedup
from edge_resnet.measurement.report.record import Row

_rows = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 40)), min_size=1, max_size=9).map(
    lambda figures: [row(f"r{i} fp32", float(p90), answers(hits, 40)) for i, (p90, hits) in enumerate(figures)]
)


def _figures(one: Row) -> tuple[float, float]:
    assert one.latency is not None
    assert one.accuracy is not None
    return one.latency.p90_ms, one.accuracy.top1


@given(_rows)
def test_along_the_front_more_time_buys_more_accuracy(rows: list[Row]) -> None:
    """Sorted by latency, accuracy rises; rows equal in both are next to each other."""
    figures = [_figures(one) for one in pareto_front(rows)]
    assert figures == sorted(figures)
    for (fast, low), (slow, high) in pairwise(figures):
        assert (fast < slow and low < high) or (fast, low) == (slow, high)


@given(_rows)
def test_every_other_row_is_dominated_by_one_on_the_front(rows: list[Row]) -> None:
    """A row is off the front exactly where another is at least as good in both and better in one."""
    best = {one.label for one in pareto_front(rows)}
    for one in rows:
        assert (dominated_by(one, rows) is None) == (one.label in best)
        if one.label not in best:
            better = [_figures(other) for other in pareto_front(rows)]
            p90, top1 = _figures(one)
            assert any(a <= p90 and b >= top1 and (a, b) != (p90, top1) for a, b in better)


def test_a_row_without_a_figure_is_not_on_the_front() -> None:
    """A row without accuracy or latency neither dominates nor is dominated."""
    rows = [row("a fp32", 5.0, None), row("b fp32", None, answers(40, 40)), row("c fp32", 9.0, answers(10, 40))]
    rows.append(row("d fp32", None, answers(5, 40)))
    assert [one.label for one in pareto_front(rows)] == ["c fp32"]
    assert [dominated_by(one, rows) for one in rows] == [None] * 4


def test_a_drop_counts_images_and_not_shares() -> None:
    """300 and 296 of the same 400 differ by one point; how certain that is depends on which images they are."""
    nested = accuracy_drop(row("a fp32", 1, answers(300)), row("b fp32", 1, answers(296)))
    shifted = accuracy_drop(row("a fp32", 1, answers(300)), row("b fp32", 1, answers(296, shift=60)))
    assert nested is not None
    assert shifted is not None
    assert nested.points == shifted.points == pytest.approx(1.0)
    assert nested.ci95[1] - nested.ci95[0] < shifted.ci95[1] - shifted.ci95[0]
    assert nested.p < shifted.p


def test_other_images_are_not_compared() -> None:
    """Another set, another length, or no results per image: there is nothing to pair."""
    one, other = row("a fp32", 1, answers(300)), row("b fp32", 1, answers(300))
    assert other.accuracy is not None
    for accuracy in (replace(other.accuracy, data_digest="e"), replace(other.accuracy, right=""), None):
        assert accuracy_drop(one, replace(other, accuracy=accuracy)) is None


@given(st.integers(0, 30), st.integers(0, 30))
def test_a_difference_is_the_opposite_of_its_opposite(only_one: int, only_other: int) -> None:
    """Swapping the two swaps signs and bounds."""
    there, back = paired_difference(only_one, only_other, 100), paired_difference(only_other, only_one, 100)
    assert there.points == -back.points
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))
    assert there.p == pytest.approx(back.p)
    assert there.ci95[0] <= there.points <= there.ci95[1]


def test_a_speedup_has_the_bounds_that_both_intervals_allow() -> None:
    """The ratio lies between the bounds that the two intervals allow."""
    found = speedup(row("a fp32", 20.0, None), row("a int8", 8.0, None))
    assert found is not None
    assert found.ratio == pytest.approx(2.5)
    assert found.low == pytest.approx(2.5 * 0.97 / 1.04)
    assert found.high == pytest.approx(2.5 * 1.04 / 0.97)
    assert speedup(row("a fp32", None, None), row("a int8", 8.0, None)) is None
