"""The timing loops on a clock that only the queries advance, so that every number is known."""

from __future__ import annotations

from itertools import chain, cycle, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import MS, HandClock, Scripted, TwoSlots

from edge_resnet.measurement.bench.timing import Limits, one_by_one, overlapped, warm_up

IMAGE = np.zeros((1, 2, 2, 3), np.uint8)


def silent(done: float) -> None:
    """A tick that does nothing."""


@given(latencies=st.lists(st.floats(0.001, 500), min_size=1, max_size=50))
def test_scripted_latencies_come_back(latencies: list[float]) -> None:
    """Each query's time is the scripted one, in order, and no time passes between queries."""
    clock = HandClock()
    backend = Scripted(clock, cycle(latencies))
    timings = one_by_one(lambda: backend.infer(IMAGE), Limits(0, len(latencies)), silent, clock)
    assert timings.samples_ns == [round(latency * MS) for latency in latencies]
    assert timings.outside_ns == 0
    assert timings.complete


@pytest.mark.parametrize(
    ("limits", "count", "complete"),
    [
        (Limits(1.0, 1), 100, True),
        (Limits(0.5, 200), 200, True),
        (Limits(1.0, 1000, max_seconds=3.0), 300, False),
    ],
    ids=["seconds", "queries", "at most"],
)
def test_both_minimums_are_reached(limits: Limits, count: int, complete: bool) -> None:
    """The later of seconds and queries ends it; max_seconds ends it in any case, and then it is not complete."""
    clock = HandClock()
    backend = Scripted(clock, repeat(10.0))
    timings = one_by_one(lambda: backend.infer(IMAGE), limits, silent, clock)
    assert (len(timings.samples_ns), timings.complete) == (count, complete)


def test_ticks_rise_and_do_not_count_as_latency() -> None:
    """A tick per second reports the share done; its own time is not in the samples."""
    clock, shares = HandClock(), []

    def slow(done: float) -> None:
        shares.append(done)
        clock.now += 50 * MS

    backend = Scripted(clock, repeat(100.0))
    timings = one_by_one(lambda: backend.infer(IMAGE), Limits(5.0, 10), slow, clock)
    assert set(timings.samples_ns) == {100 * MS}
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    assert timings.outside_ns == 50 * MS * (len(shares) - (shares[-1] == 1))


def test_an_interrupted_run_keeps_its_samples() -> None:
    """Ctrl-C in a query keeps the queries before it, and not that one."""
    clock = HandClock()
    backend = Scripted(clock, chain(repeat(3.0, 7), [KeyboardInterrupt()]))
    timings = one_by_one(lambda: backend.infer(IMAGE), Limits(10, 100), silent, clock)
    assert timings.samples_ns == [3 * MS] * 7
    assert timings.interrupted
    assert not timings.complete


def test_an_error_is_not_swallowed() -> None:
    """What the backend raises propagates."""
    clock = HandClock()
    backend = Scripted(clock, [1.0, ValueError("no")])
    with pytest.raises(ValueError, match="no"):
        one_by_one(lambda: backend.infer(IMAGE), Limits(10, 100), silent, clock)


def test_warm_up_discards_the_slow_beginning() -> None:
    """Thirty slow queries, then fast ones: it continues until three windows agree, and only fast queries follow."""
    clock = HandClock()
    backend = Scripted(clock, chain([80.0 - 2 * step for step in range(30)], repeat(10.0)))
    warm = warm_up(lambda: backend.infer(IMAGE), 0.2, 60, clock)
    assert warm.settled
    assert warm.queries > 30
    assert warm.seconds == pytest.approx(clock.now / 1e9)
    timings = one_by_one(lambda: backend.infer(IMAGE), Limits(1, 50), silent, clock)
    assert set(timings.samples_ns) == {10 * MS}


def test_warm_up_ends_at_its_limit() -> None:
    """Latencies that keep rising never settle: it ends near its limit, not settled."""
    clock = HandClock()
    backend = Scripted(clock, (10.0 * 1.05**step for step in range(1000)))
    warm = warm_up(lambda: backend.infer(IMAGE), 0.2, 5, clock)
    assert not warm.settled
    assert 5 <= warm.seconds < 10


def test_warm_up_lasts_at_least_its_minimum() -> None:
    """Even if latencies are constant from the start."""
    clock = HandClock()
    backend = Scripted(clock, repeat(10.0))
    assert warm_up(lambda: backend.infer(IMAGE), 2, 60, clock).seconds == pytest.approx(2, abs=0.2)


def test_two_are_under_way_and_the_rate_is_the_devices() -> None:
    """A batch is prepared while the one before runs: the samples are the device's times, and at most two batches are running."""
    clock = HandClock()
    backend = TwoSlots(clock, repeat(20.0))

    def begin() -> int:
        clock.now += 5 * MS
        return backend.submit(IMAGE)

    timings = overlapped(begin, backend.result, Limits(1, 10), silent, clock)
    assert set(timings.samples_ns) == {20 * MS}
    assert len(timings.samples_ns) == 50
    assert backend.max_running == 2
    assert not backend.under_way
    assert timings.complete


def test_overlapped_is_interrupted_the_same_way() -> None:
    """Ctrl-C while waiting for a result keeps what ended before."""
    clock = HandClock()
    backend = TwoSlots(clock, repeat(20.0))
    ends = 0

    def end(ticket: object) -> object:
        nonlocal ends
        ends += 1
        if ends == 6:
            raise KeyboardInterrupt
        assert isinstance(ticket, int)
        return backend.result(ticket)

    timings = overlapped(lambda: backend.submit(IMAGE), end, Limits(10, 100), silent, clock)
    assert timings.samples_ns == [20 * MS] * 4
    assert timings.interrupted


@given(seconds=st.floats(0.01, 100), queries=st.integers(1, 1000), elapsed=st.integers(0, 10**12), count=st.integers(0, 2000))
def test_the_share_done(seconds: float, queries: int, elapsed: int, count: int) -> None:
    """It lies in 0 to 1, and is 1 exactly when both minimums are reached."""
    share = Limits(seconds, queries).done(elapsed, count)
    assert 0 <= share <= 1
    assert (share == 1) == (elapsed / 1e9 / seconds >= 1 and count >= queries)
