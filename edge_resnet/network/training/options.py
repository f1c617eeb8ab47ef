"""The options of a training, validated, and its results as records. Does not know about networks or images."""

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
    "TrainObserver",
    "TrainOptions",
    "TrainPrecision",
    "TrainResult",
    "usual_augmentation",
]


@dataclass(frozen=True, eq=False)
class TrainData:
    """Labelled images to train on and optionally to test on. ``preprocess`` makes the network's input of them."""

    train: ImageSet
    test: ImageSet | None
    preprocess: Preprocess


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, counted from 1. ``step``: total steps at its end. ``rate``: the learning rate of its last step.

    ``train_loss``, ``train_error``: mean cross-entropy (with label smoothing, if any) and error in percent, accumulated over
    the augmented images while the weights change. ``test_loss``, ``test_error``: the same on the test images, None if the epoch
    was not tested. ``seconds``: without the test. ``images_per_s``: training images per second.
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
    """The outcome of a training.

    ``best``: the epoch with the lowest test error, or training error if nothing was tested. ``stopped``: why the training ended
    early, None if it did not. ``diverged``: it ended because the loss was not finite. ``seconds``: of all epochs and tests,
    including those before a resume.
    """

    records: tuple[EpochRecord, ...]
    best: EpochRecord
    stopped: str | None
    seconds: float
    diverged: bool = False


@runtime_checkable
class TrainObserver(Protocol):
    """A Progress that is also notified of losses and epochs."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps are done."""

    def running(self, epoch: int, loss: float, error: float) -> None:
        """The means of the current epoch so far; ``error`` in percent."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch has ended."""


Schedule: TypeAlias = Literal["one-cycle", "paper-cifar", "paper-imagenet", "cosine", "constant"]
#: ``auto`` is bf16 if the processor has instructions for it.
TrainPrecision: TypeAlias = Literal["auto", "fp32", "bf16"]
#: ``shift``: padded by 4 pixels and cropped. ``cifar``: also mirrored (section 4.2). ``imagenet``: a crop of random scale and
#: aspect ratio, mirrored. ``scales``: the paper's (section 3.4): resized to a short side of 256 to 480, cropped, mirrored.
Augmentation: TypeAlias = Literal["none", "shift", "cifar", "imagenet", "scales"]


@dataclass(frozen=True)
class TrainOptions:
    """SGD with momentum for ``epochs`` epochs, which need not be a whole number. Raises ConfigError for invalid values.

    ``batch``: images per step, over all processes; images that do not fill the last batch of an epoch are left out.
    ``rate``: the schedule's highest learning rate. ``warm_up``: the rate to start with, until the training error is below 80 %
    (0.01 for 110 layers, section 4.2). ``decay_norms``: apply weight decay to biases and batch norms too, as the paper does.
    ``ema``: decay per step of a moving average of weights and statistics; the average is then what is tested and kept.
    ``channels_last``: the memory format that is faster on most processors. ``max_steps``: stop after so many steps of the full
    schedule. ``test_every``: epochs between tests. ``patience``: stop after so many tests without improvement. ``keep``: the
    weights of the last epoch, or of the best test, whose error is then optimistic. ``workers``: processes that decode images
    that do not stay in memory. ``device``: ``auto``, ``cpu`` or ``cuda``.
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
        _require(self.batch >= 1, f"a batch has at least one image, not {self.batch}", "128 is usual")
        _require(_positive(self.rate), f"the learning rate must be above 0, not {self.rate}", "0.1 is usual")
        _require(0 <= self.momentum < 1, f"momentum must lie in [0, 1), not {self.momentum}", "0.9 is usual")
        _require(
            not self.nesterov or self.momentum > 0,
            "Nesterov momentum needs a momentum above 0",
            "use momentum 0.9, or nesterov=False",
        )
        _require(0 <= self.weight_decay < 1, f"weight decay must lie in [0, 1), not {self.weight_decay}", "the paper uses 1e-4")
        _require(
            self.warm_up is None or _positive(self.warm_up),
            f"the warm-up rate must be above 0, not {self.warm_up}",
            "0.01 is usual",
        )
        _require(0 <= self.label_smoothing < 1, f"label smoothing must lie in [0, 1), not {self.label_smoothing}", "0.1 is usual")
        _require(self.ema is None or 0 < self.ema < 1, f"ema must lie in (0, 1), not {self.ema}", "0.999 is usual")
        _require(self.seed >= 0, f"the seed must be 0 or more, not {self.seed}", "use a whole number")
        for name in ("max_steps", "patience", "test_every"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, not {value}")
        _require(self.workers >= 0, f"workers must be 0 or more, not {self.workers}", "0 decodes in the training process")
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            _require(value in get_args(kind), f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")


_CHOICES = {"schedule": Schedule, "precision": TrainPrecision, "augment": Augmentation, "keep": Literal["last", "best"]}


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _require(condition: bool, message: str, hint: str = "") -> None:
    if not condition:
        raise ConfigError(message, hint=hint)


def usual_augmentation(family: Family, data: str) -> Augmentation:
    """The augmentation that a family's images are trained with; mirrored digits are other digits, so these are only shifted."""
    return "shift" if data == "digits" else "imagenet" if family == "imagenet" else "cifar"
