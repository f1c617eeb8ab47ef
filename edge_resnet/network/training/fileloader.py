"""Serves training images that do not fit in memory: worker processes decode and augment them with torchvision's transforms.v2.

The augmentation of an image depends on the seed, the epoch and its index, not on the process that decodes it. Does not know
about networks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from edge_resnet.core.errors import DataError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import ImageSet, require_labels
from edge_resnet.images.preprocess import preprocess
from edge_resnet.network.training.distributed import World
from edge_resnet.network.training.loader import TrainBatch, effective_batch, epoch_order
from edge_resnet.network.training.options import Augmentation, TrainOptions

__all__ = ["FileLoader", "transform_of"]

logger = logging.getLogger(__name__)

#: The paper draws the short side from 256..480 for crops of 224 (section 3.4).
_SHORT_SIDES = (256 / 224, 480 / 224)
#: A larger share of unreadable images is an error.
_MAX_UNREADABLE = 0.05
#: How long a worker that was told to end may take, seconds.
_END_S = 5.0
#: What a worker gets: an image's index in the set, and the epoch.
_Request = tuple[int, int]
#: What a worker returns: pixels (crop, crop, 3), label, and the error of an image that was replaced, or "".
_Decoded = tuple[torch.Tensor, int, str]


@dataclass(eq=False)
class FileLoader:
    """Serves labelled ``images``, decoded when needed. An image that cannot be read is replaced by the next, with a warning."""

    images: ImageSet
    preprocess: Preprocess
    options: TrainOptions
    world: World
    _batches: _EpochBatches = field(init=False)
    _loader: DataLoader[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._batches = _EpochBatches()
        workers = self.options.workers
        self._loader = DataLoader(
            _DecodedImages(self.images, self.preprocess, self.options),
            batch_sampler=self._batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.world.device.type == "cuda",
            collate_fn=_collated,
            generator=torch.Generator(),  # otherwise each epoch would draw from the caller's generator
        )

    @property
    def batch(self) -> int:
        """Images per batch: as in the options, at most all of them."""
        return effective_batch(len(self.images), self.options, self.world)

    @property
    def steps(self) -> int:
        """Whole batches in an epoch."""
        return len(self.images) // self.batch

    def epoch(self, number: int) -> Iterator[TrainBatch]:
        """This process's share of each batch. Raises DataError if too many images cannot be read."""
        order, _ = epoch_order(len(self.images), self.options.seed, number)
        mine = self.world.share(self.batch)
        starts = range(0, self.steps * self.batch, self.batch)
        self._batches.requests = [[(int(i), number) for i in order[s + mine.start : s + mine.stop]] for s in starts]
        seen, unreadable = 0, 0
        for pixels, labels, faults in self._loader:
            seen, unreadable = seen + len(labels), unreadable + len(faults)
            for fault in faults:
                logger.warning("replaced an image by the next one: %s", fault)
            if unreadable >= 2 and unreadable > _MAX_UNREADABLE * len(self.images):
                raise DataError(f"{unreadable} of {seen} images cannot be read", hint="replace them; the warnings name each")
            yield pixels, labels

    def close(self) -> None:
        """Stop the workers. Until then torch raises for a dead worker whenever any child process of this one ends."""
        iterator: Any = self._loader._iterator
        if iterator is not None:
            self._loader._iterator = None
            try:
                iterator._shutdown_workers()
            finally:  # that raises for one which was killed, before it has waited for those that it ends
                for worker in iterator._workers:
                    worker.join(_END_S)


def transform_of(augment: Augmentation, crop: int) -> v2.Transform:
    """The augmentation of one image, (3, H, W) uint8 → (3, crop, crop); the identity for ``none``.

    ``imagenet``: 8 to 100 % of the area, aspect ratio 3/4 to 4/3. ``scales``: the paper's, without its colour augmentation.
    ``cifar`` and ``shift`` expect images of the crop's size.
    """
    mirror = v2.RandomHorizontalFlip()
    if augment == "imagenet":
        return v2.Compose([v2.RandomResizedCrop(crop, antialias=True), mirror])
    if augment == "scales":
        sides = range(round(_SHORT_SIDES[0] * crop), round(_SHORT_SIDES[1] * crop) + 1)
        return v2.Compose([v2.RandomShortestSize(list(sides), antialias=True), v2.RandomCrop(crop), mirror])
    shift = v2.RandomCrop(crop, padding=4)
    return v2.Compose([shift, mirror]) if augment == "cifar" else shift if augment == "shift" else v2.Identity()


class _EpochBatches:
    """The batches of the current epoch, which the DataLoader reads as its sampler."""

    requests: list[list[_Request]]

    def __iter__(self) -> Iterator[list[_Request]]:
        return iter(self.requests)

    def __len__(self) -> int:
        return len(self.requests)


class _DecodedImages(Dataset[_Decoded]):
    """Decodes and augments one image; runs in the worker processes."""

    def __init__(self, images: ImageSet, preprocess: Preprocess, options: TrainOptions) -> None:
        self._images, self._preprocess, self._seed = images, preprocess, options.seed
        self._labels = require_labels(images)
        self._transform = transform_of(options.augment, preprocess.crop)
        self._transform_resizes = options.augment in ("imagenet", "scales")

    def __getitem__(self, request: _Request) -> _Decoded:
        index, epoch = request
        fault = ""
        for offset in range(len(self._images)):
            chosen = (index + offset) % len(self._images)
            try:
                image = self._images.load(chosen)
            except DataError as error:
                fault = fault or str(error)
                continue
            pixels = torch.from_numpy(image if self._transform_resizes else preprocess(image, self._preprocess)).permute(2, 0, 1)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(np.random.SeedSequence([self._seed, epoch, index]).generate_state(1)[0]))
                augmented = self._transform(pixels)
            return augmented.permute(1, 2, 0).contiguous(), self._labels[chosen], fault
        raise DataError(f"no image of {self._images.name} can be read", hint=fault)


def _collated(parts: list[_Decoded]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    pixels, labels, faults = zip(*parts, strict=True)
    return torch.stack(pixels), torch.tensor(labels), [fault for fault in faults if fault]
