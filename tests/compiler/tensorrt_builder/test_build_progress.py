"""progress.py: nested phases count, nothing goes backwards, and a build ends at 100 percent."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.compiler.tensorrt.progress import BuildMonitor, PhaseShares

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "step", "finish"]),
        st.sampled_from("abcd"),
        st.sampled_from([None, *"abcd"]),
        st.integers(-1, 9),
    ),
    max_size=40,
)


def test_a_nested_phase_counts() -> None:
    """Two of six steps are finished, and a quarter of what lies below the third."""
    shares = PhaseShares()
    shares.start("Building engine", None, 6)
    for step in (0, 1):
        shares.step("Building engine", step)
    assert shares.share == pytest.approx(2 / 6)
    shares.start("Timing tactics", "Building engine", 2)
    shares.start("Timing graph nodes", "Timing tactics", 2)
    shares.step("Timing graph nodes", 0)
    assert shares.share == pytest.approx((2 + 1 / 4) / 6)
    shares.step("Timing tactics", 0)
    shares.finish("Timing graph nodes")
    assert shares.share == pytest.approx((2 + 1 / 2) / 6)


def test_the_last_step_need_not_come() -> None:
    """The real builder numbers five of six steps and ends: then the build is whole."""
    shares = PhaseShares()
    shares.start("Building engine", None, 6)
    for step in range(5):
        shares.step("Building engine", step)
    assert shares.share == pytest.approx(5 / 6)
    shares.finish("Building engine")
    assert shares.share == 1.0


@given(EVENTS)
def test_no_order_of_calls_goes_backwards_or_beyond(events: list[tuple[str, str, str | None, int]]) -> None:
    """Phases within themselves, unknown parents, steps that do not exist: a share of 0 to 1 that never decreases."""
    shares, before = PhaseShares(), 0.0
    for call, name, parent, number in events:
        if call == "start":
            shares.start(name, parent, number)
        elif call == "step":
            shares.step(name, number)
        else:
            shares.finish(name)
        assert before <= shares.share <= 1.0
        before = shares.share


def test_what_progress_raises_cancels(tensorrt_of: Callable[[str], ModuleType]) -> None:
    """step_complete returns False from then on, and progress is not called again."""
    calls: list[int] = []

    def fails(stage: str, done: int, total: int) -> None:
        calls.append(done)
        raise BrokenPipeError

    build = BuildMonitor(tensorrt_of("10.3.0"), fails)
    build.monitor.phase_start("Building engine", None, 2)
    assert build.monitor.step_complete("Building engine", 0) is False
    assert build.monitor.step_complete("Building engine", 1) is False
    assert isinstance(build.failure, BrokenPipeError)
    assert calls == [0]
