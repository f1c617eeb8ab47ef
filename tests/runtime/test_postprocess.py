"""From logits to classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.runtime.postprocess import softmax, top_k

LOGITS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=50).map(lambda row: np.array(row, np.float32))


def _labels(count: int) -> list[str]:
    return [f"label {index}" for index in range(count)]


@given(logits=LOGITS)
def test_probabilities_sum_to_one(logits: np.ndarray) -> None:
    """For logits of any size: finite, in [0, 1], and the largest logit has the largest probability."""
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float32
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities[logits.argmax()] == probabilities.max()


@given(logits=LOGITS, shift=st.integers(-1000, 1000))
def test_a_common_shift_changes_nothing(logits: np.ndarray, shift: int) -> None:
    """Adding a constant to all logits does not change the probabilities."""
    small = np.clip(logits, -50, 50).astype(np.float64)
    np.testing.assert_allclose(softmax(small + shift), softmax(small), atol=1e-6)


@given(logits=LOGITS, k=st.integers(1, 60))
def test_classes_come_best_first(logits: np.ndarray, k: int) -> None:
    """min(k, C) classes in falling order, each with its label; the first has the largest logit."""
    answers = top_k(logits, _labels(len(logits)), k)
    assert len(answers) == min(k, len(logits))
    values = [logits[answer.class_index] for answer in answers]
    assert values == sorted(values, reverse=True)
    assert answers[0].class_index == int(logits.argmax())
    assert all(answer.label == f"label {answer.class_index}" for answer in answers)
    assert len({answer.class_index for answer in answers}) == len(answers)


def test_ties_go_by_index() -> None:
    """Equal logits: the lower class first."""
    answers = top_k(np.array([1, 3, 3, 1, 3], np.float32), _labels(5), 4)
    assert [answer.class_index for answer in answers] == [1, 2, 4, 0]


@pytest.mark.parametrize(("shape", "labels", "k"), [((3,), 2, 1), ((3,), 4, 1), ((2, 3), 3, 1), ((3,), 3, 0)])
def test_mismatched_arguments_are_refused(shape: tuple[int, ...], labels: int, k: int) -> None:
    """There must be one label per class, one row, and k of at least 1."""
    with pytest.raises(ConfigError):
        top_k(np.zeros(shape, np.float32), _labels(labels), k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    """A logit that is not finite is a failure of the device, not a prediction."""
    with pytest.raises(BackendError) as caught:
        top_k(np.array([1, value, 2], np.float32), _labels(3))
    assert caught.value.hint
