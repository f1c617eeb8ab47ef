"""Answers that do not flicker: probabilities smoothed over frames, and hysteresis against changes. Does not look at images."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import ConfigError
from edge_resnet.runtime.answers import UNKNOWN
from edge_resnet.streaming.records import Answer

__all__ = ["AnswerSmoother", "Smoothing"]

#: ``none``: each frame by itself; ``exponential``: a mean in which older frames weigh less; ``vote``: the class that was the best
#: one in most of the last frames.
Method: TypeAlias = Literal["none", "exponential", "vote"]
#: A value per class.
_Row: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Smoothing:
    """``frames``: how many to smooth over; the exponential mean gives the newest the weight 2 / (frames + 1). ``hysteresis``: by
    how much another class must lead, in probability or share of the votes, and by how much the current one may fall below
    ``min_confidence``. If the smoothed probability of the class is below ``min_confidence``, the answer is unknown."""

    method: Method = "none"
    frames: int = 10
    hysteresis: float = 0.0
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(
                f"smoothing takes at least 1 frame, not {self.frames}", hint="10 is a third of a second at 30 frames per second"
            )
        for name in ("hysteresis", "min_confidence"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"{name.replace('_', ' ')} lies in 0..1, not {value}", hint="0.05 is a small hysteresis")


class AnswerSmoother:
    """Answers of one source, frame after frame."""

    def __init__(self, labels: Sequence[str], smoothing: Smoothing) -> None:
        self._labels, self._smoothing = labels, smoothing
        self._mean: _Row | None = None
        self._rows: deque[_Row] = deque(maxlen=smoothing.frames)
        #: None before the first frame; -1 for unknown.
        self._held: int | None = None

    def next(self, probabilities: npt.NDArray[np.float32]) -> Answer:
        """The answer after the next frame, given its probabilities (C,)."""
        scores, smoothed = self._smoothed(probabilities.astype(np.float64))
        best = int(scores.argmax())
        held, before = self._held, self._held
        if held is None or held < 0 or scores[best] > scores[held] + self._smoothing.hysteresis:
            held = best
        # The current class may fall a little lower than a new one must rise.
        min_probability = self._smoothing.min_confidence - (self._smoothing.hysteresis if held == before else 0.0)
        if smoothed[held] < min_probability:
            held = -1
        self._held = held
        if held < 0:
            return Answer(-1, UNKNOWN, float(smoothed[best]), held != before)
        return Answer(held, self._labels[held], float(smoothed[held]), held != before)

    def _smoothed(self, newest: _Row) -> tuple[_Row, _Row]:
        """The scores that decide between classes, and the smoothed probabilities; (C,) both."""
        if self._smoothing.method == "none":
            return newest, newest
        if self._smoothing.method == "exponential":
            weight = 2.0 / (self._smoothing.frames + 1)
            self._mean = newest if self._mean is None else self._mean + weight * (newest - self._mean)
            return self._mean, self._mean
        self._rows.append(newest)
        rows = np.stack(self._rows)
        return np.bincount(rows.argmax(axis=1), minlength=len(newest)) / len(rows), rows.mean(axis=0)
