"""Serves the training images in batches, shuffled and augmented, from memory. Knows nothing of networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from edge_resnet.core.errors import ConfigError, DataError, EdgeResnetError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import ImageSet, batches, require_labels, require_several
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.network.training.distributed import World
from edge_resnet.network.training.options import TrainOptions

__all__ = [
    "PADDING",
    "Draws",
    "MemoryLoader",
    "TrainBatch",
    "TrainLoader",
    "batch_of",
    "check_classes",
    "draw",
    "order_of",
    "shifted",
    "telling_deaths",
]


#: On each side before the random crop, in pixels (He et al. 2015, section 4.2).
PADDING = 4


@dataclass(frozen=True, eq=False)
class Draws:
    """What happens to each of N images: the crop's ``tops`` and ``lefts`` (N,) in 0..8, ``mirrored`` (N,) bool."""

    tops: npt.NDArray[np.int64]
    lefts: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]

    def __getitem__(self, chosen: slice) -> Draws:
        return Draws(self.tops[chosen], self.lefts[chosen], self.mirrored[chosen])


def draw(count: int, rng: np.random.Generator, *, mirror: bool) -> Draws:
    """Draw shifts of up to 4 pixels each way and, where ``mirror`` is set, mirror images with probability 1/2."""
    tops = rng.integers(0, 2 * PADDING + 1, count)
    lefts = rng.integers(0, 2 * PADDING + 1, count)
    return Draws(tops, lefts, rng.random(count) < (0.5 if mirror else 0.0))


def shifted(images: ImageArray, draws: Draws) -> ImageArray:
    """Apply ``draws`` to ``images`` (N, H, W, 3) uint8: padded by 4 black pixels, cropped back, mirrored. A copy.

    The paper's augmentation of CIFAR-10 (section 4.2).
    """
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    rows = draws.tops[:, None] + np.arange(height)
    forward = np.arange(width)
    columns = draws.lefts[:, None] + np.where(draws.mirrored[:, None], forward[::-1], forward)
    cropped: ImageArray = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cropped


#: Images (n, H, W, 3) uint8 and their labels (n,) int64.
TrainBatch: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class TrainLoader(Protocol):
    """An epoch's batches, the same for the same number and seed; what fills no batch is left out until the next shuffle."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def batch(self) -> int:
        """Images in each, over all processes."""

    def epoch(self, number: int) -> Iterator[TrainBatch]:
        """This process's share of each batch of epoch ``number``, counted from 0."""

    def close(self) -> None:
        """Let go of what it holds."""


@dataclass(frozen=True, eq=False)
class MemoryLoader:
    """Decoded images (N, crop, crop, 3) uint8 with labels (N,), shifted and mirrored as the options say."""

    pixels: ImageArray
    labels: npt.NDArray[np.int64]
    options: TrainOptions
    world: World

    @classmethod
    def load(cls, images: ImageSet, preprocess: Preprocess, options: TrainOptions, world: World) -> MemoryLoader:
        """Decode all of ``images`` once; those that cannot be read are left out with a warning."""
        pixels = np.empty((len(images), preprocess.crop, preprocess.crop, 3), np.uint8)
        labels, count = np.empty(len(images), np.int64), 0
        for part in batches(images, preprocess, 512):
            assert part.labels is not None
            fresh = slice(count, count + len(part.labels))
            pixels[fresh], labels[fresh] = part.images, part.labels
            count = fresh.stop
        return cls(pixels[:count], labels[:count], options, world)

    @property
    def batch(self) -> int:
        """The batch asked for, or all images where they are fewer."""
        return batch_of(len(self.pixels), self.options, self.world)

    @property
    def steps(self) -> int:
        """Whole batches in an epoch."""
        return len(self.pixels) // self.batch

    def epoch(self, number: int) -> Iterator[TrainBatch]:
        """Shuffle anew, draw the augmentation of the whole epoch, serve it."""
        order, rng = order_of(len(self.pixels), self.options.seed, number)
        draws = draw(len(order), rng, mirror=self.options.augment == "cifar")
        mine = self.world.share(self.batch)
        for step in range(self.steps):
            part = slice(step * self.batch + mine.start, step * self.batch + mine.stop)
            chosen = self.pixels[order[part]]
            if self.options.augment != "none":
                chosen = shifted(chosen, draws[part])
            yield torch.from_numpy(chosen), torch.from_numpy(self.labels[order[part]])

    def close(self) -> None:
        """There is nothing to let go of."""


@contextmanager
def telling_deaths() -> Iterator[None]:
    """Map the death of a decoding process to EdgeResnetError: torch raises it from a signal handler, so anywhere, and where the
    process died in the midst of handing over a batch the connection to it breaks first."""
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        message = "a process that decodes images died: memory, or /dev/shm in a container, has mostly run out"
        raise EdgeResnetError(message, hint="--workers 0 or 1, a smaller --batch, or docker run --ipc=host") from error


def batch_of(count: int, options: TrainOptions, world: World) -> int:
    """Images a step where there are ``count`` in all; the same number for each process.

    Raises ConfigError where the processes cannot share the batch, DataError where there are too few images for them.
    """
    if options.batch % world.size:
        message = f"a batch of {options.batch} images cannot be shared by {world.size} processes"
        raise ConfigError(message, hint=f"--batch {-(-options.batch // world.size) * world.size}")
    batch = min(options.batch, count // world.size * world.size)
    if batch < 2 * world.size:
        message = f"{batch} images a step for {world.size} processes: a batch norm needs two in each"
        raise DataError(message, hint="a larger --batch, or more images")
    return batch


def order_of(count: int, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], np.random.Generator]:
    """The order in which an epoch takes its images, and the generator that goes on from there."""
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(count), rng


def check_classes(images: ImageSet) -> None:
    """Raise DataError unless there are labels of two classes at least."""
    require_several(images)
    found = set(require_labels(images))
    if len(found) < 2:
        only = images.class_names[found.pop()] if images.class_names else f"class {found.pop()}"
        raise DataError(f"all {len(images)} images of {images.name} are {only}", hint="a network tells two classes apart")
