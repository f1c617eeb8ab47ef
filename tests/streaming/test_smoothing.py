"""smoothing.py: properties of an answer that does not flicker."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.smoothing import AnswerSmoother, Smoothing

LABELS = ("cat", "dog", "fish", "bird")
METHODS = st.sampled_from(["none", "exponential", "vote"])
ROWS = st.lists(st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4), min_size=1, max_size=40)


def probabilities(row: list[float]) -> npt.NDArray[np.float32]:
    return (np.array(row) / sum(row)).astype(np.float32)


def sure(index: int, probability: float = 0.9) -> npt.NDArray[np.float32]:
    """Probabilities with one class at the given value, and the others equal."""
    row = np.full(4, (1 - probability) / 3, np.float32)
    row[index] = probability
    return row


@given(METHODS, st.integers(1, 20), st.integers(0, 3), st.integers(1, 30))
def test_what_stays_the_same_is_answered_at_once_and_changes_once(method: str, frames: int, index: int, count: int) -> None:
    """The first frame already has the answer, and only that one is a change."""
    stable = AnswerSmoother(LABELS, Smoothing(method, frames, hysteresis=0.1, min_confidence=0.3))  # type: ignore[arg-type]
    answers = [stable.next(sure(index)) for _ in range(count)]
    assert {answer.label for answer in answers} == {LABELS[index]}
    assert [answer.changed for answer in answers] == [True] + [False] * (count - 1)


@given(METHODS, st.integers(1, 12), st.floats(0, 0.3), st.floats(0, 0.9), ROWS)
def test_an_answer_is_a_class_or_unknown(
    method: str, frames: int, hysteresis: float, least: float, rows: list[list[float]]
) -> None:
    """The label is that of the index, the probability is one, and changed is true if it differs from the answer before."""
    stable = AnswerSmoother(LABELS, Smoothing(method, frames, hysteresis, least))  # type: ignore[arg-type]
    before: int | None = None
    for row in rows:
        answer = stable.next(probabilities(row))
        assert answer.label == ("unknown" if answer.class_index < 0 else LABELS[answer.class_index])
        assert 0 <= answer.probability <= 1 + 1e-6
        assert answer.changed is (answer.class_index != before)
        before = answer.class_index
        if answer.class_index >= 0:
            assert answer.probability >= least - hysteresis - 1e-9


@given(ROWS)
def test_without_smoothing_the_answer_is_the_best_class(rows: list[list[float]]) -> None:
    """Each frame by itself, whatever came before."""
    stable = AnswerSmoother(LABELS, Smoothing())
    for row in rows:
        wanted = probabilities(row)
        assert wanted[stable.next(wanted).class_index] == wanted.max()


@pytest.mark.parametrize("method", ["exponential", "vote"])
def test_a_glitch_does_not_change_the_answer(method: str) -> None:
    """One frame in ten says dog: it stays a cat. Twelve in a row say dog: it becomes one."""
    stable = AnswerSmoother(LABELS, Smoothing(method, 10, hysteresis=0.1))  # type: ignore[arg-type]
    for _ in range(10):
        stable.next(sure(0))
    assert stable.next(sure(1)).label == "cat"
    for _ in range(9):
        assert stable.next(sure(0)).label == "cat"
    answers = [stable.next(sure(1)) for _ in range(12)]
    assert answers[-1].label == "dog"
    assert sum(answer.changed for answer in answers) == 1


def test_two_that_are_nearly_alike_do_not_flicker() -> None:
    """The lead must be larger than the hysteresis."""
    stable = AnswerSmoother(LABELS, Smoothing(hysteresis=0.1))
    rows = [probabilities([0.50, 0.50 + sign * 0.03, 0.01, 0.01]) for sign in (-1, 1) * 10]
    assert sum(stable.next(row).changed for row in rows) == 1
    assert stable.next(probabilities([0.3, 0.7, 0.01, 0.01])).label == "dog"


def test_below_the_confidence_it_is_unknown_until_it_is_clear_again() -> None:
    """The current class may fall a little below; a new one must reach the full confidence."""
    stable = AnswerSmoother(LABELS, Smoothing(hysteresis=0.1, min_confidence=0.6))
    shown = [stable.next(sure(0, value)).label for value in (0.55, 0.7, 0.55, 0.45, 0.55, 0.65)]
    assert shown == ["unknown", "cat", "cat", "unknown", "unknown", "cat"]


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"hysteresis": 1.0}, {"hysteresis": -0.1}, {"min_confidence": 1.5}])
def test_wrong_smoothing_is_refused(wrong: dict[str, float]) -> None:
    """The error names the valid range."""
    with pytest.raises(ConfigError):
        Smoothing("vote", **wrong)  # type: ignore[arg-type]


def test_votes_are_no_probability() -> None:
    """Ten frames with low probabilities agree: the answer has their probability, and is unknown if that is too low."""
    doubtful = probabilities([0.3, 0.25, 0.25, 0.2])
    stable, strict = (AnswerSmoother(LABELS, Smoothing("vote", 10, min_confidence=least)) for least in (0.0, 0.5))
    for _ in range(10):
        answer, refused = stable.next(doubtful), strict.next(doubtful)
    assert (answer.label, refused.label) == ("cat", "unknown")
    assert answer.probability == pytest.approx(0.3)
