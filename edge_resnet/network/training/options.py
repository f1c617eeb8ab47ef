"""What a training is asked to do, checked once. Knows nothing of networks and images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Family, Preprocess
from edge_resnet.images.imageset import ImageSet

__all__ = [
    "Augmentation",
    "EpochRecord",
    "Schedule",
    "TrainData",
    "TrainOptions",
    "TrainPrecision",
    "TrainResult",
    "Watcher",
    "usual_augmentation",
]


@dataclass(frozen=True, eq=False)
class TrainData:
    """Labelled images to learn from and, where there are any, to be tested on; ``preprocess`` is the network's input."""

    train: ImageSet
    test: ImageSet | None
    preprocess: Preprocess


@dataclass(frozen=True)
class EpochRecord:
    """One pass, counted from 1. ``step``: steps done by its end. ``rate``: the learning rate of its last step.

    ``train_loss``, ``train_error``: mean cross-entropy (of the smoothed labels, where they are) and share of wrong answers in
    percent, running over the augmented epoch while the weights change. ``test_loss``, ``test_error``: of the images held
    out, None where they were not asked. ``seconds``: the pass without its test. ``images_per_s``: images learned a second.
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


Schedule: TypeAlias = Literal["one-cycle", "paper-cifar", "paper-imagenet", "cosine", "constant"]
#: ``auto`` takes bf16 where this processor multiplies it in hardware.
TrainPrecision: TypeAlias = Literal["auto", "fp32", "bf16"]
#: ``shift``: padded by 4 and cropped; ``cifar``: also mirrored (section 4.2); ``imagenet``: a part of the image of random
#: scale and aspect, mirrored; ``scales``: the paper's own (section 3.4): a short side between 256 and 480, cropped, mirrored.
Augmentation: TypeAlias = Literal["none", "shift", "cifar", "imagenet", "scales"]


@dataclass(frozen=True)
class TrainOptions:
    """SGD with momentum over ``epochs`` passes, which need not be whole.

    ``batch``: images a step, over all processes together; an epoch leaves the last ones out that fill no batch.
    ``rate``: the schedule's highest learning rate. ``warm_up``: a rate to begin with until the training error is below 80 %
    (0.01 for 110 layers, section 4.2). ``decay_norms``: decay biases and batch norms too, as the paper does. ``ema``: decay a
    step of a moving average of weights and statistics, which is then what is tested and kept. ``channels_last``: the memory
    format that most processors prefer. ``max_steps``: stop there, on the schedule of all epochs. ``test_every``: epochs
    between two tests. ``patience``: stop after so many tests without a better one. ``keep``: the weights of the last epoch,
    or of the one that tested best, which is then an optimistic figure. ``workers``: processes that decode images which do
    not stay in memory. ``device``: ``auto``, ``cpu``, ``cuda``.
    """

    epochs: float = 30
    batch: int = 128
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = True
    decay_norms: bool = True
    schedule: Schedule = "one-cycle"
    warm_up: float | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    precision: TrainPrecision = "fp32"
    channels_last: bool = True
    augment: Augmentation = "cifar"
    seed: int = 0
    deterministic: bool = False
    max_steps: int | None = None
    test_every: int = 1
    patience: int | None = None
    keep: Literal["last", "best"] = "last"
    workers: int = 2
    sync_bn: bool = False
    tensorboard: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        _require(0 < self.epochs < 1e6, f"epochs must be above 0, not {self.epochs}", "30 is a good start")
        _require(self.batch >= 1, f"a batch holds at least one image, not {self.batch}", "128 is usual")
        _require(_positive(self.rate), f"the learning rate must be above 0, not {self.rate}", "0.1 is usual")
        _require(0 <= self.momentum < 1, f"momentum must lie in [0, 1), not {self.momentum}", "0.9 is usual")
        _require(not self.nesterov or self.momentum > 0, "Nesterov's form needs a momentum", "nesterov=False, or 0.9")
        _require(0 <= self.weight_decay < 1, f"weight decay must lie in [0, 1), not {self.weight_decay}", "1e-4 is the paper's")
        _require(self.warm_up is None or _positive(self.warm_up), f"warm-up must be above 0, not {self.warm_up}", "0.01")
        _require(0 <= self.label_smoothing < 1, f"label smoothing must lie in [0, 1), not {self.label_smoothing}", "0.1")
        _require(self.ema is None or 0 < self.ema < 1, f"ema must lie in (0, 1), not {self.ema}", "0.999 for a step of many")
        _require(self.seed >= 0, f"a seed is 0 or more, not {self.seed}", "any whole number")
        for name in ("max_steps", "patience", "test_every"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, not {value}")
        _require(self.workers >= 0, f"workers must be 0 or more, not {self.workers}", "0 decodes in the training process")
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            _require(value in get_args(kind), f"{name} is one of {', '.join(get_args(kind))}, not {value!r}")


_CHOICES = {"schedule": Schedule, "precision": TrainPrecision, "augment": Augmentation, "keep": Literal["last", "best"]}


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _require(condition: bool, message: str, hint: str = "") -> None:
    if not condition:
        raise ConfigError(message, hint=hint)


def usual_augmentation(family: Family, data: str) -> Augmentation:
    """The augmentation that a family's images are trained with; mirrored digits are other digits, so these are only shifted."""
    return "shift" if data == "digits" else "cifar" if family == "cifar" else "imagenet"
