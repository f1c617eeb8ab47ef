"""What a training takes and gives: pictures in, a record per epoch out. Knows nothing of how it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import ImageSet

__all__ = ["EpochRecord", "TrainData", "TrainResult", "Watcher"]


@dataclass(frozen=True, eq=False)
class TrainData:
    """Labelled pictures to learn from and, where there are any, to be tested on; ``preprocess`` is the network's input."""

    train: ImageSet
    test: ImageSet | None
    preprocess: Preprocess


@dataclass(frozen=True)
class EpochRecord:
    """One pass, counted from 1. ``step``: steps done by its end. ``rate``: the learning rate of its last step.

    ``train_loss``, ``train_error``: mean cross-entropy (of the smoothed labels, where they are) and share of wrong answers in
    percent, running over the augmented epoch while the weights change. ``test_loss``, ``test_error``: of the pictures held
    out, None where they were not asked. ``seconds``: the pass without its test. ``images_per_s``: pictures learned a second.
    """

    epoch: int
    step: int
    rate: float
    train_loss: float
    train_error: float
    test_loss: float | None
    test_error: float | None
    seconds: float
    images_per_s: float


@dataclass(frozen=True)
class TrainResult:
    """``best``: the epoch with the lowest test error (training error without a test). ``stopped``: why it ended before its
    time, None where it did not; ``diverged``: because the loss was not finite. ``seconds``: of all passes and tests, those
    before a resume included."""

    records: tuple[EpochRecord, ...]
    best: EpochRecord
    stopped: str | None
    seconds: float
    diverged: bool = False


@runtime_checkable
class Watcher(Protocol):
    """A Progress that is also told how the training goes."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Steps done of all."""

    def running(self, epoch: int, loss: float, error: float) -> None:
        """The means of this epoch so far; ``error`` in percent."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch has ended."""
