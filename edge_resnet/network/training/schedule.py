"""Learning rates by step: the paper's schedules scaled to any length, one-cycle, cosine. Does not know about optimizers.

A rate depends on the step alone, so that a resumed training needs no state for it. The exception is the paper's warm-up for deep
networks, which depends on the training error.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from edge_resnet.network.training.options import TrainOptions

__all__ = ["WARM_UP_ERROR", "WarmUp", "rate_at"]

#: Divided by 10 at 32k and 48k of 64k iterations (section 4.2), as shares of all steps.
_PAPER_CIFAR = (0.5, 0.75)
#: Divided by 10 at epochs 30 and 60 of 90 (section 3.4: when the error plateaus), as shares of all steps.
_PAPER_IMAGENET = (1 / 3, 2 / 3)
#: One-cycle (Smith and Topin, arXiv:1708.07120): rises during the first 30 % from a 25th, then falls to a 10,000th of that.
_RISE, _START, _END = 0.3, 25.0, 1e4
#: The warm-up ends when the training error in percent is below this.
WARM_UP_ERROR = 80.0
#: Steps over which the warm-up averages the error, because that of one batch is noisy.
_WINDOW = 50


def rate_at(options: TrainOptions, step: int, steps: int) -> float:
    """The learning rate of ``step`` in 0..steps-1 of a training of ``steps`` steps, without warm-up.

    ``paper-imagenet`` drops after each third of the training; from 105 epochs on, after each quarter.
    """
    share = step / steps
    if options.schedule == "paper-cifar":
        return _step_decay(options.rate, share, _PAPER_CIFAR)
    if options.schedule == "paper-imagenet":
        longer = options.epochs >= 105
        return _step_decay(options.rate, share, (0.25, 0.5, 0.75) if longer else _PAPER_IMAGENET)
    if options.schedule == "one-cycle":
        return _one_cycle(options.rate, step, steps)
    if options.schedule == "cosine":
        return options.rate * (1 + math.cos(math.pi * share)) / 2
    return options.rate


class WarmUp:
    """Uses a low rate until the mean training error of the last steps is below 80 % (section 4.2, for 110 layers)."""

    def __init__(self, rate: float | None, errors: Sequence[float] = ()) -> None:
        self._rate = rate
        self._errors: deque[float] = deque(errors, _WINDOW)
        self.active = rate is not None

    @property
    def errors(self) -> tuple[float, ...]:
        """The recent batch errors in percent, oldest first, for a checkpoint."""
        return tuple(self._errors)

    def rate(self, planned: float) -> float:
        """The rate to use instead of the schedule's rate ``planned``."""
        return planned if self._rate is None or not self.active else self._rate

    def add(self, error: float) -> None:
        """Add the error of one batch in percent. Ends the warm-up permanently when the mean is low enough."""
        self._errors.append(error)
        if len(self._errors) == _WINDOW and sum(self._errors) / _WINDOW < WARM_UP_ERROR:
            self.active = False
            self._errors.clear()


def _step_decay(rate: float, share: float, drops: Sequence[float]) -> float:
    # The share is a rounded quotient; with the tolerance the drop comes at exactly its step.
    dropped = sum(share >= drop - 1e-9 for drop in drops)
    return float(rate / 10**dropped)


def _one_cycle(rate: float, step: int, steps: int) -> float:
    top = max(1.0, _RISE * steps)
    low, end = rate / _START, rate / _START / _END
    if step < top:
        return _cosine(low, rate, step / top)
    return _cosine(rate, end, (step - top) / max(1.0, steps - 1 - top))


def _cosine(start: float, end: float, share: float) -> float:
    """Half a cosine wave from ``start`` to ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
