"""The two answers, and what they admit."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from reports import answers, row

from edge_resnet.measurement.report.front import fastest_within, limits_ms, most_accurate_under

ROWS = [
    row("small int8", 9.0, answers(250)),
    row("small fp32", 18.0, answers(290)),
    row("large int8", 19.5, answers(306)),
    row("large fp32", 52.0, answers(310, shift=3)),
]


def test_the_most_accurate_under_a_limit() -> None:
    """Of those that are fast enough the best one; nothing where nothing is."""
    chosen = {limit: most_accurate_under(limit, ROWS).row for limit in (5, 10, 19, 20, 100)}
    assert {limit: one.label if one else None for limit, one in chosen.items()} == {
        5: None, 10: "small int8", 19: "small fp32", 20: "large int8", 100: "large fp32",
    }  # fmt: skip


def test_it_says_who_is_level_and_whether_the_limit_holds_for_sure() -> None:
    """large int8 is not told apart from large fp32; the upper end of 19.5 ms lies above 20."""
    chosen = most_accurate_under(100, ROWS)
    assert [one.label for one, _ in chosen.level] == ["large int8"]
    assert chosen.holds
    assert not most_accurate_under(20, ROWS).holds
    assert most_accurate_under(21, ROWS).holds


def test_rows_of_other_images_are_never_called_worse() -> None:
    """What cannot be compared is named with no difference."""
    other = row("other fp32", 3.0, answers(100))
    assert other.accuracy is not None
    strange = row("other fp32", 3.0, answers(100, 300))
    level = most_accurate_under(100, [*ROWS, strange]).level
    assert ("other fp32", None) in [(one.label, found) for one, found in level]


def test_of_two_alike_the_faster_one() -> None:
    """The same top-1 at less time wins."""
    rows = [row("a fp32", 20.0, answers(300)), row("b fp32", 10.0, answers(300))]
    chosen = most_accurate_under(100, rows).row
    assert chosen is not None
    assert chosen.label == "b fp32"


def test_the_fastest_within_some_points() -> None:
    """By the measured values, and by the whole interval: that needs more points."""
    within = {points: fastest_within(points, ROWS) for points in (0.5, 1.0, 5.0, 20.0)}
    labels = {points: (one.row.label, one.sure.label) for points, one in within.items() if one}
    assert labels[0.5] == ("large fp32", "large fp32")
    assert labels[1.0] == ("large int8", "large fp32")
    assert labels[5.0] == ("small fp32", "large int8")
    assert labels[20.0] == ("small int8", "small int8")


@settings(max_examples=60)
@given(st.floats(0.1, 50), st.floats(0.1, 50))
def test_more_points_never_cost_time(one: float, other: float) -> None:
    """A wider allowance gives a row that is as fast or faster, by either reading; the sure one is never the faster."""
    small, large = fastest_within(min(one, other), ROWS), fastest_within(max(one, other), ROWS)
    assert small is not None
    assert large is not None
    for less, more in ((large.row, small.row), (large.sure, small.sure), (small.row, small.sure)):
        assert less.latency is not None
        assert more.latency is not None
        assert less.latency.p90_ms <= more.latency.p90_ms


def test_no_row_no_answer() -> None:
    """Latency alone answers neither."""
    assert fastest_within(1, [row("a fp32", 5.0, None)]) is None
    assert most_accurate_under(10, [row("a fp32", 5.0, None)]).row is None
    assert limits_ms([row("a fp32", 5.0, None)]) == ()


@settings(max_examples=60)
@given(st.lists(st.floats(0.05, 5000), min_size=1, max_size=6))
def test_limits_are_round_and_reach_the_slowest(latencies: list[float]) -> None:
    """They rise, are 1, 2 or 5 with zeros, at most six, and the last is no less than the slowest."""
    limits = limits_ms([row(f"r{i} fp32", p90, answers(10, 40)) for i, p90 in enumerate(latencies)])
    assert 1 <= len(limits) <= 6
    assert list(limits) == sorted(set(limits))
    assert {f"{limit:e}"[0] for limit in limits} <= {"1", "2", "5"}
    assert limits[-1] >= max(latencies)
    assert len(limits) == 6 or limits[0] < min(latencies)
