"""Learning rates by step: the paper's schedules scaled to a length, one-cycle, cosine. Knows nothing of optimizers.

A rate depends on the step alone, so that a training that goes on after a stop needs no memory of its rates; only the paper's
warm-up for deep networks looks at the training error, and its memory is here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from edge_resnet.network.training.options import TrainOptions

__all__ = ["WARM_UP_ERROR", "WarmUp", "rate_at"]

#: 0.1, divided by 10 at 32k and 48k of 64k iterations (section 4.2), as shares of the length.
_PAPER_CIFAR = (0.5, 0.75)
#: Divided by 10 at every third of the length: epochs 30 and 60 of 90 (section 3.4 divides where the error plateaus).
_PAPER_IMAGENET = (1 / 3, 2 / 3)
#: One-cycle (Smith and Topin, arXiv:1708.07120): up in the first 30 %, from a 25th, down to a 10,000th of that.
_RISE, _START, _END = 0.3, 25.0, 1e4
#: Percent: the warm-up ends below it.
WARM_UP_ERROR = 80.0
#: Steps over which the warm-up averages the error: one batch alone jumps.
_WINDOW = 50


def rate_at(options: TrainOptions, step: int, steps: int) -> float:
    """The learning rate of ``step`` in 0..steps-1 of a training of ``steps``, warm-up aside.

    ``paper-imagenet`` drops at 30 and 60 of 90 epochs; from 105 epochs on also at 90, as of 120.
    """
    share = step / steps
    if options.schedule == "paper-cifar":
        return _stairs(options.rate, share, _PAPER_CIFAR)
    if options.schedule == "paper-imagenet":
        longer = options.epochs >= 105
        return _stairs(options.rate, share, (0.25, 0.5, 0.75) if longer else _PAPER_IMAGENET)
    if options.schedule == "one-cycle":
        return _one_cycle(options.rate, step, steps)
    if options.schedule == "cosine":
        return options.rate * (1 + math.cos(math.pi * share)) / 2
    return options.rate


class WarmUp:
    """Holds a low rate until the mean training error of the last steps is below 80 % (section 4.2, for 110 layers)."""

    def __init__(self, rate: float | None, errors: Sequence[float] = ()) -> None:
        self._rate = rate
        self._errors: deque[float] = deque(errors, _WINDOW)
        self.active = rate is not None

    @property
    def errors(self) -> tuple[float, ...]:
        """What it remembers, for a checkpoint: batch errors in percent, the oldest first."""
        return tuple(self._errors)

    def rate(self, planned: float) -> float:
        """The rate to use where the schedule says ``planned``."""
        return planned if self._rate is None or not self.active else self._rate

    def saw(self, error: float) -> None:
        """Note one batch's error in percent; ends the warm-up for good where the mean is low enough."""
        self._errors.append(error)
        if len(self._errors) == _WINDOW and sum(self._errors) / _WINDOW < WARM_UP_ERROR:
            self.active = False
            self._errors.clear()


def _stairs(rate: float, share: float, drops: Sequence[float]) -> float:
    # A step's share is a quotient: the tolerance keeps a drop at exactly its step.
    passed = sum(share >= drop - 1e-9 for drop in drops)
    return float(rate / 10**passed)


def _one_cycle(rate: float, step: int, steps: int) -> float:
    top = max(1.0, _RISE * steps)
    low, end = rate / _START, rate / _START / _END
    if step < top:
        return _glide(low, rate, step / top)
    return _glide(rate, end, (step - top) / max(1.0, steps - 1 - top))


def _glide(start: float, end: float, share: float) -> float:
    """Half a cosine wave from ``start`` to ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
