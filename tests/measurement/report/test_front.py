"""The two choices of a report, and how certain they say they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from reports import answers, row

from edge_resnet.measurement.report.front import best_accuracy_under, fastest_within, limits_ms

ROWS = [
    row("small int8", 9.0, answers(250)),
    row("small fp32", 18.0, answers(290)),
    row("large int8", 19.5, answers(306)),
    row("large fp32", 52.0, answers(310, shift=3)),
]


def test_the_most_accurate_under_a_limit() -> None:
    """The most accurate row that is fast enough; None where no row is."""
    chosen = {limit: best_accuracy_under(limit, ROWS).row for limit in (5, 10, 19, 20, 100)}
    assert {limit: one.label if one else None for limit, one in chosen.items()} == {
        5: None, 10: "small int8", 19: "small fp32", 20: "large int8", 100: "large fp32",
    }  # fmt: skip


def test_rivals_and_certain_limits_are_named() -> None:
    """large int8 does not differ significantly from large fp32; the upper bound of 19.5 ms lies above 20."""
    chosen = best_accuracy_under(100, ROWS)
    assert [rival.row.label for rival in chosen.rivals] == ["large int8"]
    assert chosen.limit_holds
    assert not best_accuracy_under(20, ROWS).limit_holds
    assert best_accuracy_under(21, ROWS).limit_holds


def test_rows_on_other_images_are_never_called_worse() -> None:
    """A row that cannot be compared is a rival without a difference."""
    other = row("other fp32", 3.0, answers(100))
    assert other.accuracy is not None
    strange = row("other fp32", 3.0, answers(100, 300))
    rivals = best_accuracy_under(100, [*ROWS, strange]).rivals
    assert ("other fp32", None) in [(rival.row.label, rival.difference) for rival in rivals]


def test_of_two_equal_rows_the_faster_is_chosen() -> None:
    """Of the same top-1 the lower latency wins."""
    rows = [row("a fp32", 20.0, answers(300)), row("b fp32", 10.0, answers(300))]
    chosen = best_accuracy_under(100, rows).row
    assert chosen is not None
    assert chosen.label == "b fp32"


def test_the_fastest_within_some_points() -> None:
    """By the measured values, and by the whole interval, which takes more points."""
    within = {points: fastest_within(points, ROWS) for points in (0.5, 1.0, 5.0, 20.0)}
    labels = {points: (one.row.label, one.certain.label) for points, one in within.items() if one}
    assert labels[0.5] == ("large fp32", "large fp32")
    assert labels[1.0] == ("large int8", "large fp32")
    assert labels[5.0] == ("small fp32", "large int8")
    assert labels[20.0] == ("small int8", "small int8")


@given(st.floats(0.1, 50), st.floats(0.1, 50))
def test_more_points_never_cost_time(one: float, other: float) -> None:
    """A larger allowed loss gives a row that is as fast or faster, either way; the certain row is never the faster one."""
    small, large = fastest_within(min(one, other), ROWS), fastest_within(max(one, other), ROWS)
    assert small is not None
    assert large is not None
    for faster, slower in ((large.row, small.row), (large.certain, small.certain), (small.row, small.certain)):
        assert faster.p90_ms <= slower.p90_ms


def test_latency_alone_gives_no_choice() -> None:
    """A row without an accuracy is never chosen."""
    assert fastest_within(1, [row("a fp32", 5.0, None)]) is None
    assert best_accuracy_under(10, [row("a fp32", 5.0, None)]).row is None
    assert limits_ms([row("a fp32", 5.0, None)]) == ()


@given(st.lists(st.floats(0.05, 5000), min_size=1, max_size=6))
def test_limits_are_round_and_reach_the_slowest(latencies: list[float]) -> None:
    """At most six ascending limits of 1, 2 or 5 times a power of ten; the last is not below the slowest row."""
    limits = limits_ms([row(f"r{i} fp32", p90, answers(10, 40)) for i, p90 in enumerate(latencies)])
    assert 1 <= len(limits) <= 6
    assert list(limits) == sorted(set(limits))
    assert {f"{limit:e}"[0] for limit in limits} <= {"1", "2", "5"}
    assert limits[-1] >= max(latencies)
    assert len(limits) == 6 or limits[0] < min(latencies)
