"""What an experiment was asked to do, checked once, and the data that it names. Knows nothing of what the experiments do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import FAMILIES, IMAGENET_MEAN, IMAGENET_STD, Family, ModelSpec, Preprocess, Shortcut
from edge_resnet.images.datasets import NAMES, Split, open_data
from edge_resnet.images.imageset import ImageSet, balanced_sample, check_labels, require_labels, require_several
from edge_resnet.network.training import TrainOptions

__all__ = ["ExperimentRequest", "labelled"]


@dataclass(frozen=True)
class ExperimentRequest:
    """What the user asked for.

    ``depths``: empty for the paper's. ``shortcut``: None for the paper's (A for CIFAR and the twins, B for ImageNet).
    ``data``, ``test_data``: what ``open_data`` takes. ``images``, ``test_images``: how many of them, drawn class by class; None
    for all. ``classes``, ``input_size``: None for the family's. ``weights``: ``NAME=FILE`` each. ``source``: the output folder
    of an experiment that trained. ``scales``, ``flips``: of multi-scale testing. ``held_out``: the share of the images that
    weights are chosen on. ``training``: None where nothing is trained.
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
            raise ConfigError(f"a seed is 0 or more, not {self.seed}", hint="the same one draws the same images")
        if len(set(self.depths)) < len(self.depths):
            raise ConfigError("a depth is named twice", hint="for example --depths 20,56")

    def like(self, *, shortcut: Shortcut | None = None) -> ModelSpec:
        """A network of the family, of a depth to be replaced, with ``shortcut`` where the user chose none."""
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
        """Of the square that the network sees, in pixels."""
        return self.input_size or FAMILIES[self.family].input_size

    @property
    def preprocess(self) -> Preprocess:
        """CIFAR's images are taken whole; of ImageNet's the short side is resized to 8/7 of the crop (section 3.4)."""
        return Preprocess(FAMILIES[self.family].resize(self.side), self.side, mean=self.mean, std=self.std)

    def settings(self) -> dict[str, Any]:
        """What was asked for, as JSON has it; where the output lies does not count."""
        shown = {name: value for name, value in vars(self).items() if name not in ("output", "training", "source")}
        if self.source is not None:
            shown["source"] = str(self.source)
        if self.training is not None:
            shown["training"] = dict(vars(self.training))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}


def labelled(
    request: ExperimentRequest, split: Split, *, classes: int | None = None, names: Sequence[str] | None = None
) -> ImageSet:
    """The labelled images of one part, as many as were asked for, drawn class by class with the request's seed.

    ``names``: what the network calls its classes, to number class folders by. Raises ConfigError where no data are named,
    DataError where they have no labels or do not fit ``classes``, where that is known.
    """
    argument, count = (request.data, request.images) if split == "train" else (_test_argument(request), request.test_images)
    if not argument:
        option = "--data" if split == "train" or not request.training else "--test-data"
        raise ConfigError(f"no {split} images are named", hint=f"{option}: a folder of class folders, a CSV, an .npz, or cifar10")
    images = open_data(argument, split=split, label_names=names)
    require_labels(images)
    require_several(images)
    if classes is not None:
        check_labels(images, classes)
    return images if count is None or count >= len(images) else balanced_sample(images, count, request.seed)


def _test_argument(request: ExperimentRequest) -> str:
    """The images to test on: those named, the other part of a set with two parts, else none."""
    if request.test_data:
        return request.test_data
    return request.data if request.training is None or request.data in NAMES else ""
