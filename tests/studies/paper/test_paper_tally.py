"""Error rates on the same images, and their paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.statistics import mcnemar_exact, paired_drop_interval
from edge_resnet.studies.paper.tally import (
    difference_record,
    difference_text,
    error_difference,
    error_rate,
    hits_of,
    with_significance,
)

rights = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(st.integers(1, 30), st.integers(2, 12), st.integers(0, 10_000))
def test_hits_are_what_sorting_says(count: int, classes: int, seed: int) -> None:
    """Top-1 is the largest probability; top-5 includes top-1, and everything for at most five classes."""
    rng = np.random.default_rng(seed)
    answers = rng.random((count, classes)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    hits = hits_of(answers, labels)
    assert np.array_equal(hits[:, 0], answers.argmax(axis=1) == labels)
    better = (answers > answers[np.arange(count), labels][:, None]).sum(axis=1)
    assert np.array_equal(hits[:, 1], better < 5)
    assert classes > 5 or hits[:, 1].all()


def test_ties_go_to_the_lower_class() -> None:
    """A network with equal probabilities predicts class 0 and is not correct by luck."""
    hits = hits_of(np.full((7, 7), 1 / 7, np.float32), np.arange(7))
    assert hits[:, 0].tolist() == [True] + [False] * 6
    assert hits[:, 1].tolist() == [True] * 5 + [False] * 2


def test_errors_in_percent() -> None:
    """One of four wrong is 25 %, inside its interval; a label among the first five is no top-5 error."""
    rate = error_rate(np.array([[1, 1], [1, 1], [1, 1], [0, 1]], bool))
    assert (rate.images, rate.top1, rate.top5) == (4, 25.0, 0.0)
    assert rate.top1_ci95[0] < 25 < rate.top1_ci95[1]


@given(rights)
def test_swapping_the_networks_negates_the_difference(pairs: list[tuple[bool, bool]]) -> None:
    """Points and interval change their sign; p is the same."""
    one, other = (np.array([pair[place] for pair in pairs]) for place in (0, 1))
    there, back = error_difference(one, other), error_difference(other, one)
    assert there.points == -back.points
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))
    assert there.p == back.p


@given(rights)
def test_points_are_the_difference_of_the_errors(pairs: list[tuple[bool, bool]]) -> None:
    """Points equal error minus error and lie in their interval; a negative difference means that the first has a lower error."""
    one, other = (np.array([pair[place] for pair in pairs]) for place in (0, 1))
    found = error_difference(one, other)
    assert found.points == pytest.approx(100 * (np.mean(~one) - np.mean(~other)))
    assert found.ci95[0] - 1e-9 <= found.points <= found.ci95[1] + 1e-9


@given(rights)
def test_interval_and_p_are_those_of_core_statistics(pairs: list[tuple[bool, bool]]) -> None:
    """Tango's paired interval of the errors, and McNemar's exact p, from the images that one of the two alone gets right."""
    one, other = (np.array([pair[place] for pair in pairs]) for place in (0, 1))
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    low, high = paired_drop_interval(only_other, only_one, len(pairs))
    points = 100 * (only_other - only_one) / len(pairs)
    expected = {"points": points, "ci95": (100 * low, 100 * high), "p": mcnemar_exact(only_one, only_other)}
    assert difference_record(error_difference(one, other)) == expected


def test_significance_is_stated_only_for_a_real_difference() -> None:
    """Thirty images that only one gets right are a significant difference; the same network twice is none."""
    one, other = np.ones(200, bool), np.arange(200) >= 30
    assert "significant" in with_significance(error_difference(one, other))
    assert "no significant" not in with_significance(error_difference(one, other))
    assert difference_text(error_difference(one, other)).startswith("-15.00 (")
    assert error_difference(one, other).ci95[1] < 0
    assert "no significant difference" in with_significance(error_difference(other, other))
    assert error_difference(other, other).p == 1
