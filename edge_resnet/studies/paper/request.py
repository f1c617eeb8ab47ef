"""The settings of an experiment, validated, and the images that they name. Does not know what the experiments do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import (
    FAMILIES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    ModelSpec,
    Preprocess,
    Shortcut,
    default_preprocess,
)
from edge_resnet.images.datasets import NAMES, Split, open_data
from edge_resnet.images.imageset import ImageSet, balanced_sample, check_labels, require_labels, require_several
from edge_resnet.network.training import TrainOptions

__all__ = ["ExperimentRequest", "open_labelled"]


@dataclass(frozen=True)
class ExperimentRequest:
    """The settings of one experiment.

    ``depths``: empty for the paper's. ``shortcut``: None for the paper's (A for CIFAR and for plain against residual, B for
    ImageNet). ``data``, ``test_data``: arguments of ``open_data``. ``images``, ``test_images``: the number to draw, balanced by
    class; None for all. ``classes``, ``input_size``: None for the family's. ``weights``: ``NAME=FILE`` each. ``source``: the
    output folder of an experiment that trained. ``scales``, ``flips``: for multi-scale testing. ``held_out``: the share of the
    images on which an ensemble's weights are chosen. ``training``: None if nothing is trained.
    """

    experiment: str
    output: Path
    family: Family = "cifar"
    depths: tuple[int, ...] = ()
    shortcut: Shortcut | None = None
    data: str = ""
    test_data: str = ""
    images: int | None = None
    test_images: int | None = None
    classes: int | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    weights: tuple[str, ...] = ()
    source: Path | None = None
    scales: tuple[int, ...] = ()
    flips: bool = True
    held_out: float = 0.5
    seed: int = 0
    training: TrainOptions | None = field(default=None)

    def __post_init__(self) -> None:
        for name in ("images", "test_images"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be 1 or more, not {count}", hint="leave it out to use all")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"--held-out must lie between 0 and 1, not {self.held_out}", hint="0.5 halves the images")
        if self.seed < 0:
            raise ConfigError(f"the seed must be 0 or more, not {self.seed}", hint="the same seed draws the same images")
        if len(set(self.depths)) < len(self.depths):
            raise ConfigError("a depth is given twice", hint="for example --depths 20,56")

    def base_spec(self, *, shortcut: Shortcut | None = None) -> ModelSpec:
        """A network of the family whose depth is to be replaced, with ``shortcut`` if the user chose none."""
        defaults = FAMILIES[self.family]
        return ModelSpec(
            self.family,
            defaults.depths[0],
            self.shortcut or shortcut or defaults.shortcut,
            classes=self.classes or defaults.classes,
            input_size=self.side,
        )

    @property
    def side(self) -> int:
        """The side of the network's input in pixels."""
        return self.input_size or FAMILIES[self.family].input_size

    @property
    def preprocess(self) -> Preprocess:
        """CIFAR images are used whole; the short side of ImageNet images is resized to 8/7 of the crop (section 3.4)."""
        return default_preprocess(self.family, self.side, mean=self.mean, std=self.std)

    def settings(self) -> dict[str, Any]:
        """All settings for JSON, except the output folder."""
        shown = {name: value for name, value in vars(self).items() if name not in ("output", "training", "source")}
        if self.source is not None:
            shown["source"] = str(self.source)
        if self.training is not None:
            shown["training"] = dict(vars(self.training))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}


def open_labelled(
    request: ExperimentRequest, split: Split, *, classes: int | None = None, names: Sequence[str] | None = None
) -> ImageSet:
    """Open the labelled images of one split; if fewer were asked for, draw them balanced by class with the request's seed.

    ``names``: the network's class names, to number class folders by. Raises ConfigError if no images are given, DataError if
    they have no labels or a label exceeds ``classes``.
    """
    argument, count = (request.data, request.images) if split == "train" else (_test_argument(request), request.test_images)
    if not argument:
        option = "--data" if split == "train" or not request.training else "--test-data"
        raise ConfigError(f"no {split} images are given", hint=f"{option}: a folder of class folders, a CSV, an .npz, or cifar10")
    images = open_data(argument, split=split, label_names=names)
    require_labels(images)
    require_several(images)
    if classes is not None:
        check_labels(images, classes)
    return images if count is None or count >= len(images) else images.subset(balanced_sample(images, count, request.seed))


def _test_argument(request: ExperimentRequest) -> str:
    """The test images: those given, or the other split of a named set; without training, ``data``."""
    if request.test_data:
        return request.test_data
    return request.data if request.training is None or request.data in NAMES else ""
