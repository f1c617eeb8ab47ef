"""Serves training images that do not stay in memory: decoded and augmented by processes of their own, through torchvision's
transforms.v2. Knows nothing of networks.

What happens to an image depends on the seed, the epoch and its index alone, not on which process decodes it.
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
from edge_resnet.images.preprocess import preprocess as prepared
from edge_resnet.network.training.distributed import World
from edge_resnet.network.training.loader import TrainBatch, batch_of, order_of
from edge_resnet.network.training.options import Augmentation, TrainOptions

__all__ = ["FileLoader", "transform_of"]

logger = logging.getLogger(__name__)

#: The paper's short side is drawn from 256..480 for crops of 224 (section 3.4).
_SHORT_SIDES = (256 / 224, 480 / 224)
_BAD_SHARE = 0.05
#: How long a decoding process that was told to end may take.
_END_S = 5.0
#: An image's index in the set, and the epoch.
_Ask = tuple[int, int]
#: What a decoding process hands over: pixels (crop, crop, 3), label, and what could not be read, if anything.
_Decoded = tuple[torch.Tensor, int, str]


@dataclass(eq=False)
class FileLoader:
    """Labelled ``images``, decoded when they are needed. One that cannot be read is replaced by the next, with a warning."""

    images: ImageSet
    preprocess: Preprocess
    options: TrainOptions
    world: World
    _order: _Order = field(init=False)
    _loader: DataLoader[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._order = _Order()
        workers = self.options.workers
        self._loader = DataLoader(
            _Images(self.images, self.preprocess, self.options),
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.world.device.type == "cuda",
            collate_fn=_collated,
            generator=torch.Generator(),  # else each epoch would draw a number from the caller's
        )

    @property
    def batch(self) -> int:
        """The batch asked for, or all images where they are fewer."""
        return batch_of(len(self.images), self.options, self.world)

    @property
    def steps(self) -> int:
        """Whole batches in an epoch."""
        return len(self.images) // self.batch

    def epoch(self, number: int) -> Iterator[TrainBatch]:
        """Raises DataError where too many images cannot be read."""
        order, _ = order_of(len(self.images), self.options.seed, number)
        mine = self.world.share(self.batch)
        starts = range(0, self.steps * self.batch, self.batch)
        self._order.batches = [[(int(i), number) for i in order[s + mine.start : s + mine.stop]] for s in starts]
        seen, bad = 0, 0
        for pixels, labels, faults in self._loader:
            seen, bad = seen + len(labels), bad + len(faults)
            for fault in faults:
                logger.warning("took the next image instead: %s", fault)
            if bad >= 2 and bad > _BAD_SHARE * len(self.images):
                raise DataError(f"{bad} of {seen} images cannot be read", hint="replace them; the warnings name each")
            yield pixels, labels

    def close(self) -> None:
        """End the decoding processes. Until then torch raises for a dead one whenever any child process of ours ends."""
        iterator: Any = self._loader._iterator
        if iterator is not None:
            self._loader._iterator = None
            try:
                iterator._shutdown_workers()
            finally:  # that raises for one which was killed, before it has waited for those that it ends
                for worker in iterator._workers:
                    worker.join(_END_S)


def transform_of(augment: Augmentation, crop: int) -> v2.Transform:
    """The transform of one image (3, H, W) uint8 to (3, crop, crop), but for ``none``.

    ``imagenet``: 8 to 100 % of the area, aspect 3/4 to 4/3. ``scales``: the paper's, without its shift of colours. ``cifar``
    and ``shift`` take images of the crop's size.
    """
    mirror = v2.RandomHorizontalFlip()
    if augment == "imagenet":
        return v2.Compose([v2.RandomResizedCrop(crop, antialias=True), mirror])
    if augment == "scales":
        sides = range(round(_SHORT_SIDES[0] * crop), round(_SHORT_SIDES[1] * crop) + 1)
        return v2.Compose([v2.RandomShortestSize(list(sides), antialias=True), v2.RandomCrop(crop), mirror])
    shift = v2.RandomCrop(crop, padding=4)
    return v2.Compose([shift, mirror]) if augment == "cifar" else shift if augment == "shift" else v2.Identity()


class _Order:
    """The batches of an epoch; the loader asks it anew for each."""

    batches: list[list[_Ask]]

    def __iter__(self) -> Iterator[list[_Ask]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Images(Dataset[_Decoded]):
    """Runs in the decoding processes."""

    def __init__(self, images: ImageSet, preprocess: Preprocess, options: TrainOptions) -> None:
        self._images, self._preprocess, self._seed = images, preprocess, options.seed
        self._labels = require_labels(images)
        self._transform = transform_of(options.augment, preprocess.crop)
        self._whole = options.augment in ("imagenet", "scales")

    def __getitem__(self, ask: _Ask) -> _Decoded:
        index, epoch = ask
        fault = ""
        for place in range(index, index + len(self._images)):
            try:
                image = self._images.load(place % len(self._images))
            except DataError as error:
                fault = fault or str(error)
                continue
            pixels = torch.from_numpy(image if self._whole else prepared(image, self._preprocess)).permute(2, 0, 1)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(np.random.SeedSequence([self._seed, epoch, index]).generate_state(1)[0]))
                changed = self._transform(pixels)
            return changed.permute(1, 2, 0).contiguous(), self._labels[place % len(self._images)], fault
        raise DataError(f"no image of {self._images.name} can be read", hint=fault)


def _collated(parts: list[_Decoded]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    pixels, labels, faults = zip(*parts, strict=True)
    return torch.stack(pixels), torch.tensor(labels), [fault for fault in faults if fault]
