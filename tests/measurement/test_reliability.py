"""Reliability: equal to counts by hand, and a temperature that a network's own scale is recovered by."""

from __future__ import annotations

import numpy as np
import pytest

from edge_resnet.core.errors import DataError
from edge_resnet.measurement.reliability import BINS, fit_temperature, reliability


def drawn(count: int, scale: float, *, classes: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax at the temperature ``scale`` is the true probability of each label, which is drawn by it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, classes))
    powers = np.exp(logits)
    shares = (powers / powers.sum(axis=1, keepdims=True)).cumsum(axis=1)
    labels = (rng.random((count, 1)) > shares).sum(axis=1).clip(0, classes - 1)
    return (logits * scale).astype(np.float32), labels


def test_it_equals_counts_by_hand() -> None:
    """The error is the mean distance of confidence and accuracy over the bins, weighted by their images."""
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    found = reliability(confidence, np.array([True, True, True, False, True, False]))
    assert found.ece == pytest.approx((4 * abs(95 - 75) + 2 * abs(55 - 50)) / 6)
    assert found.accuracy == pytest.approx(100 * 4 / 6)
    assert sorted(bin_.images for bin_ in found.bins) == [0] * (BINS - 2) + [2, 4]
    assert all((bin_.accuracy is None) == (bin_.images == 0) for bin_ in found.bins)


@pytest.mark.parametrize("value", [0.0, 1 / BINS, 0.5, 1.0])
def test_every_answer_is_in_a_bin(value: float) -> None:
    """A probability on the border of two bins is in one of them, and 0 and 1 are in the first and last."""
    found = reliability(np.array([value]), np.array([True]))
    bin_ = next(bin_ for bin_ in found.bins if bin_.images)
    assert bin_.low <= 100 * value <= bin_.high + 1e-9


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    """Labels drawn by softmax(z), logits z times a factor: the temperature is the factor, and removes the error."""
    logits, labels = drawn(20_000, scale)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(scale, rel=0.03)
    powers = np.exp(logits / found - (logits / found).max(axis=1, keepdims=True))
    confidence = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
    assert reliability(confidence, logits.argmax(axis=1) == labels).ece < 1.5


def test_no_temperature_without_errors_or_without_sense() -> None:
    """Where all answers are right, or the labels have nothing to do with the logits, there is no temperature."""
    logits, labels = drawn(2000, 1.0)
    with pytest.raises(DataError, match="all answers are right"):
        fit_temperature(logits, logits.argmax(axis=1))
    with pytest.raises(DataError, match="say nothing of the labels"):
        fit_temperature(-logits, labels)
