"""Learning rates: the paper's drops at the paper's steps, the shapes of the others, and the warm-up by error."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.network.training import TrainOptions
from edge_resnet.network.training.schedule import WarmUp, rate_at


def test_the_papers_cifar_schedule_at_its_own_length() -> None:
    """0.1 for 32k of 64k iterations, a tenth until 48k, a hundredth to the end (section 4.2)."""
    options = TrainOptions(schedule="paper-cifar")
    rates = {step: rate_at(options, step, 64_000) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)}
    assert list(rates.values()) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@given(st.integers(8, 5000))
def test_the_papers_drops_scale_with_the_length(steps: int) -> None:
    """At any length the full rate lasts half the steps and each lower rate a quarter, within one step."""
    options = TrainOptions(schedule="paper-cifar")
    rates = [round(rate_at(options, step, steps), 9) for step in range(steps)]
    assert abs(rates.count(0.1) - steps / 2) < 1
    assert abs(rates.count(0.01) - steps / 4) <= 1
    assert abs(rates.count(0.001) - steps / 4) < 1


@pytest.mark.parametrize(("epochs", "drops"), [(90, [30, 60]), (120, [30, 60, 90])])
def test_imagenets_rate_drops_every_thirty_epochs(epochs: int, drops: list[int]) -> None:
    """Of 90 epochs and of 120, with 10 steps per epoch."""
    options = TrainOptions(epochs=epochs, schedule="paper-imagenet")
    rates = [rate_at(options, step, epochs * 10) for step in range(epochs * 10)]
    changed = [step / 10 for step in range(1, len(rates)) if rates[step] != rates[step - 1]]
    assert changed == drops
    assert rates[0] / rates[-1] == pytest.approx(10 ** len(drops))


@given(st.integers(2, 3000))
def test_one_cycle_rises_once_and_falls_once(steps: int) -> None:
    """It never exceeds the rate, comes close to it, and ends far below its start."""
    options = TrainOptions(rate=0.4)
    rates = [rate_at(options, step, steps) for step in range(steps)]
    assert max(rates) <= 0.4 * (1 + 1e-12)
    ups = [after > before for before, after in pairwise(rates)]
    assert ups == sorted(ups, reverse=True)
    assert all(rate > 0 for rate in rates)
    if steps > 10:
        assert max(rates) > 0.35
        assert rates[0] == pytest.approx(0.4 / 25)
        assert rates[-1] == pytest.approx(0.4 / 25 / 1e4)


def test_cosine_and_constant() -> None:
    """Cosine falls from the rate through its half; constant does not change."""
    cosine = TrainOptions(rate=0.2, schedule="cosine")
    assert [rate_at(cosine, step, 100) for step in (0, 50)] == pytest.approx([0.2, 0.1])
    falling = [rate_at(cosine, step, 100) for step in range(100)]
    assert falling == sorted(falling, reverse=True)
    assert {rate_at(TrainOptions(schedule="constant"), step, 9) for step in range(9)} == {0.1}


def test_the_warm_up_holds_until_the_error_is_below_80_percent() -> None:
    """While the mean of 50 batches is at least 80 % the low rate stays; below it the warm-up ends permanently."""
    warm_up = WarmUp(0.01)
    for _ in range(60):
        warm_up.add(90.0)
    assert (warm_up.active, warm_up.rate(0.1)) == (True, 0.01)
    for _ in range(50):
        warm_up.add(79.0)
    assert (warm_up.active, warm_up.rate(0.1)) == (False, 0.1)
    for _ in range(60):
        warm_up.add(99.0)
    assert not warm_up.active


def test_one_lucky_batch_does_not_end_the_warm_up() -> None:
    """The mean is over fifty batches."""
    warm_up = WarmUp(0.01)
    for _ in range(49):
        warm_up.add(0.0)
    assert warm_up.active


def test_a_warm_up_is_restored_from_its_errors() -> None:
    """The restored one ends at the same batch."""
    first = WarmUp(0.01)
    for _ in range(30):
        first.add(70.0)
    second = WarmUp(0.01, first.errors)
    for _ in range(19):
        second.add(70.0)
    assert second.active
    second.add(70.0)
    assert not second.active


def test_without_a_warm_up_the_schedule_decides() -> None:
    """The rate None changes nothing."""
    assert WarmUp(None).rate(0.1) == 0.1
    assert not WarmUp(None).active
