"""Logits → the best classes with their labels and probabilities. Does not know about frames or networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import BackendError, ConfigError

__all__ = ["ClassScore", "check_finite", "check_top", "softmax", "top_k"]


def check_finite(logits: npt.NDArray[np.float32]) -> None:
    """Raise BackendError if a logit is not a finite number: then no prediction can be trusted, even if the others look right."""
    if not np.isfinite(logits).all():
        raise BackendError(
            "the network returned NaN or infinity",
            hint="FP16 may have overflowed: check the weights, and use edge-resnet build --fp32",
        )


def check_top(k: int) -> None:
    """Raise ConfigError where fewer than one class is asked for."""
    if k < 1:
        raise ConfigError(f"top-k needs k of at least 1, not {k}", hint="5 is the usual number")


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(…, C) float32 → probabilities of the same shape, each row summing to 1; safe for finite logits of any size."""
    wide = logits.astype(np.float64)  # the difference of two large float32 may round to zero
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    probabilities: npt.NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def top_k(
    logits: npt.NDArray[np.float32], labels: Sequence[str], k: int = 5, probabilities: npt.NDArray[np.float32] | None = None
) -> tuple[ClassScore, ...]:
    """The ``k`` best of (C,) float32 logits, best first, ties by index; all of them if C < k.

    ``probabilities``: their softmax, if the caller has it already. Raises ConfigError if there is not one label per class or
    k < 1, and BackendError as ``check_finite`` does.
    """
    if logits.ndim != 1 or len(labels) != len(logits):
        raise ConfigError(f"{len(labels)} labels do not match logits of shape {logits.shape}", hint="give one label per class")
    check_top(k)
    check_finite(logits)
    if probabilities is None:
        probabilities = softmax(logits)
    best = np.argsort(-logits, kind="stable")[:k]
    return tuple(ClassScore(int(index), labels[index], float(probabilities[index])) for index in best)


@dataclass(frozen=True)
class ClassScore:
    """One class of a prediction. ``probability``: in [0, 1], after softmax."""

    class_index: int
    label: str
    probability: float
