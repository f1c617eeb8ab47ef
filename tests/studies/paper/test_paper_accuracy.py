"""Errors on the same images, and their paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.studies.paper.tally import difference, error_rate, hits_of

rights = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(st.integers(1, 30), st.integers(2, 12), st.integers(0, 10_000))
def test_hits_are_what_sorting_says(count: int, classes: int, seed: int) -> None:
    """Top-1 is the largest probability, top-5 holds top-1 and all of at most five classes."""
    rng = np.random.default_rng(seed)
    answers = rng.random((count, classes)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    hits = hits_of(answers, labels)
    assert np.array_equal(hits[:, 0], answers.argmax(axis=1) == labels)
    better = (answers > answers[np.arange(count), labels][:, None]).sum(axis=1)
    assert np.array_equal(hits[:, 1], better < 5)
    assert classes > 5 or hits[:, 1].all()


def test_ties_go_to_the_lower_class() -> None:
    """A network that says nothing answers class 0 and is not right by luck."""
    hits = hits_of(np.full((7, 7), 1 / 7, np.float32), np.arange(7))
    assert hits[:, 0].tolist() == [True] + [False] * 6
    assert hits[:, 1].tolist() == [True] * 5 + [False] * 2


def test_errors_in_percent() -> None:
    """One of four wrong is 25 %, inside its interval; what is right among five is no top-5 error."""
    rate = error_rate(np.array([[1, 1], [1, 1], [1, 1], [0, 1]], bool))
    assert (rate.images, rate.top1, rate.top5) == (4, 25.0, 0.0)
    assert rate.top1_ci95[0] < 25 < rate.top1_ci95[1]


@given(rights)
def test_differences_turn_with_their_order(pairs: list[tuple[bool, bool]]) -> None:
    """The one minus the other is minus the other minus the one, interval and all, and p is the same."""
    one, other = (np.array([pair[place] for pair in pairs]) for place in (0, 1))
    there, back = difference(one, other), difference(other, one)
    assert there.points == -back.points
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))
    assert there.p == back.p


@given(rights)
def test_points_are_the_errors_difference(pairs: list[tuple[bool, bool]]) -> None:
    """Points equal error minus error and lie in their interval: below zero means that the one errs less."""
    one, other = (np.array([pair[place] for pair in pairs]) for place in (0, 1))
    found = difference(one, other)
    assert found.points == pytest.approx(100 * (np.mean(~one) - np.mean(~other)))
    assert found.ci95[0] - 1e-9 <= found.points <= found.ci95[1] + 1e-9


def test_a_significant_difference() -> None:
    """Thirty images that only one classifies correctly are significant; a network does not differ from itself."""
    one, other = np.ones(200, bool), np.arange(200) >= 30
    assert difference(one, other).significant
    assert difference(one, other).text.startswith("-15.00 (")
    assert not difference(other, other).significant
    assert difference(other, other).p == 1
