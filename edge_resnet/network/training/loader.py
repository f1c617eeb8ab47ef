"""Serves training images in shuffled, augmented batches from memory, and what all loaders have in common.

Does not know about networks.
"""

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
    "check_classes",
    "draw",
    "effective_batch",
    "epoch_order",
    "mapped_worker_errors",
    "shifted",
]

#: Pixels added on each side before the random crop (He et al. 2015, section 4.2).
PADDING = 4

#: Images (n, H, W, 3) uint8 and their labels (n,) int64.
TrainBatch: TypeAlias = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Draws:
    """The random augmentation of N images: ``tops`` and ``lefts`` of the crops (N,) in 0..8, ``mirrored`` (N,) bool."""

    tops: npt.NDArray[np.int64]
    lefts: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]

    def __getitem__(self, chosen: slice) -> Draws:
        return Draws(self.tops[chosen], self.lefts[chosen], self.mirrored[chosen])


def draw(count: int, rng: np.random.Generator, *, mirror: bool) -> Draws:
    """Draw shifts of up to 4 pixels in each direction and, with ``mirror``, mirror images with probability 1/2."""
    tops = rng.integers(0, 2 * PADDING + 1, count)
    lefts = rng.integers(0, 2 * PADDING + 1, count)
    return Draws(tops, lefts, rng.random(count) < (0.5 if mirror else 0.0))


def shifted(images: ImageArray, draws: Draws) -> ImageArray:
    """Pad ``images`` (N, H, W, 3) uint8 by 4 black pixels, crop and mirror them according to ``draws``. Returns a copy.

    This is the paper's augmentation for CIFAR-10 (section 4.2).
    """
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    rows = draws.tops[:, None] + np.arange(height)
    forward = np.arange(width)
    columns = draws.lefts[:, None] + np.where(draws.mirrored[:, None], forward[::-1], forward)
    cropped: ImageArray = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cropped


class TrainLoader(Protocol):
    """Serves the batches of an epoch, which depend on its number and the seed alone. Images that fill no batch are left out."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def batch(self) -> int:
        """Images per batch, over all processes."""

    def epoch(self, number: int) -> Iterator[TrainBatch]:
        """This process's share of each batch of epoch ``number``, counted from 0."""

    def close(self) -> None:
        """Release all resources."""


@dataclass(frozen=True, eq=False)
class MemoryLoader:
    """Serves decoded images (N, crop, crop, 3) uint8 with labels (N,) from memory, augmented as the options say."""

    pixels: ImageArray
    labels: npt.NDArray[np.int64]
    options: TrainOptions
    world: World

    @classmethod
    def load(cls, images: ImageSet, preprocess: Preprocess, options: TrainOptions, world: World) -> MemoryLoader:
        """Decode all of ``images`` once. Images that cannot be read are skipped with a warning."""
        pixels = np.empty((len(images), preprocess.crop, preprocess.crop, 3), np.uint8)
        labels, count = np.empty(len(images), np.int64), 0
        for part in batches(images, preprocess, 512):
            assert part.labels is not None
            rows = slice(count, count + len(part.labels))
            pixels[rows], labels[rows] = part.images, part.labels
            count = rows.stop
        return cls(pixels[:count], labels[:count], options, world)

    @property
    def batch(self) -> int:
        """Images per batch: as in the options, at most all of them."""
        return effective_batch(len(self.pixels), self.options, self.world)

    @property
    def steps(self) -> int:
        """Whole batches in an epoch."""
        return len(self.pixels) // self.batch

    def epoch(self, number: int) -> Iterator[TrainBatch]:
        """Shuffle the images, draw the augmentation of the epoch, and serve the batches."""
        order, rng = epoch_order(len(self.pixels), self.options.seed, number)
        draws = draw(len(order), rng, mirror=self.options.augment == "cifar")
        mine = self.world.share(self.batch)
        for step in range(self.steps):
            part = slice(step * self.batch + mine.start, step * self.batch + mine.stop)
            chosen = self.pixels[order[part]]
            if self.options.augment != "none":
                chosen = shifted(chosen, draws[part])
            yield torch.from_numpy(chosen), torch.from_numpy(self.labels[order[part]])

    def close(self) -> None:
        """Nothing to release."""


@contextmanager
def mapped_worker_errors() -> Iterator[None]:
    """Raise EdgeResnetError if a decoding process dies.

    torch raises from a signal handler, so at any point; if the process dies while it sends a batch, the connection to it
    breaks first.
    """
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        message = "a process that decodes images died, most likely because memory (or /dev/shm in a container) ran out"
        raise EdgeResnetError(message, hint="--workers 0 or 1, a smaller --batch, or docker run --ipc=host") from error


def effective_batch(count: int, options: TrainOptions, world: World) -> int:
    """Images per step if there are ``count`` in total; each process gets the same number.

    Raises ConfigError if the batch cannot be divided among the processes, DataError if there are too few images for them.
    """
    if options.batch % world.size:
        message = f"a batch of {options.batch} images cannot be divided among {world.size} processes"
        raise ConfigError(message, hint=f"--batch {-(-options.batch // world.size) * world.size}")
    batch = min(options.batch, count // world.size * world.size)
    if batch < 2 * world.size:
        message = f"{batch} images per step for {world.size} processes: a batch norm needs two in each process"
        raise DataError(message, hint="a larger --batch, or more images")
    return batch


def epoch_order(count: int, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], np.random.Generator]:
    """The shuffled indices of an epoch, and the generator for its further random numbers."""
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(count), rng


def check_classes(images: ImageSet) -> None:
    """Raise DataError unless the labels have at least two classes."""
    require_several(images)
    found = set(require_labels(images))
    if len(found) < 2:
        only = images.class_names[found.pop()] if images.class_names else f"class {found.pop()}"
        raise DataError(f"all {len(images)} images of {images.name} are {only}", hint="give images of at least two classes")
