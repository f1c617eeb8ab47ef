"""The networks of the comparison, each with its calibration images and held-out images. Knows no tool.

Two protocols. ``halves``: CIFAR's first 1,000 training images and all test images; of ImageNet's 500 images, each of another
class, two halves of 250 in turn, so that every image is held out once. ``few``: 512 training images for CIFAR, and 128 of
ImageNet's 500 with the other 372 held out, which is what published figures of the peers were calibrated on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.core.records import ModelSpec, Preprocess, default_spec
from edge_resnet.images.imageset import balanced_sample, batches, from_arrays, open_images, require_labels

__all__ = ["BATCH", "NETWORKS", "SEED", "Fold", "Images", "Ints", "Network", "Protocol", "cifar_sheets"]

SEED = 0
BATCH = 50
#: Calibration images of each protocol, for CIFAR and for ImageNet.
_CALIBRATION = {"halves": (1000, 250), "few": (512, 128)}

Protocol: TypeAlias = Literal["halves", "few"]
Images: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """Calibration images and held-out ones, (N, H, W, 3) uint8 as the network takes them, and the latter's classes (N,)."""

    calibration: Images
    images: Images
    labels: Ints


@dataclass(frozen=True)
class Network:
    """A checkpoint under ``weights/`` and its images: (data folder, protocol, maximum of test images) → folds."""

    spec: ModelSpec
    weights: str
    folds: Callable[[Path, Protocol, int | None], list[Fold]]


def _cifar(data: Path, protocol: Protocol, max_images: int | None) -> list[Fold]:
    """Training images of all classes alike, and the test images."""
    train, test = cifar_sheets(data, "train", 1), cifar_sheets(data, "test", 10)[:max_images]
    rows = balanced_sample(from_arrays("train", train, np.arange(len(train)) % 10), _CALIBRATION[protocol][0], SEED)
    return [Fold(train[rows], test, np.arange(len(test)) % 10)]


def cifar_sheets(data: Path, split: str, count: int) -> Images:
    """CIFAR-10 from sheets of 25 x 40 images; item i has class i % 10."""
    paths = sorted((data / "cifar10").glob(f"{split}_[0-9]*.webp"))[:count]
    tiles = [np.asarray(Image.open(path)).reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4) for path in paths]
    return np.concatenate([tile.reshape(-1, 32, 32, 3) for tile in tiles])


def _imagenet(data: Path, protocol: Protocol, max_images: int | None) -> list[Fold]:
    """The 500 images, each of another class, in a seeded order: two halves in turn, or 128 and the rest."""
    pixels = open_images(data / "imagenet" / "sample500.csv")
    labels = np.array(require_labels(pixels), np.int64)
    images = np.concatenate([batch.images for batch in batches(pixels, Preprocess(), BATCH)])
    order = np.random.default_rng(SEED).permutation(len(images))
    first, second = np.split(order, [_CALIBRATION[protocol][1]])
    turns = [(first, second), (second, first)][: 2 if protocol == "halves" else 1]
    return [Fold(images[seen], images[held_out[:max_images]], labels[held_out[:max_images]]) for seen, held_out in turns]


def _cifar_spec(depth: int) -> ModelSpec:
    return default_spec("cifar", depth)


NETWORKS = {
    "cifar20": Network(_cifar_spec(20), "cifar10/resnet20-12fca82f.th", _cifar),
    "cifar32": Network(_cifar_spec(32), "cifar10/resnet32-d509ac18.th", _cifar),
    "resnet18": Network(ModelSpec(depth=18), "imagenet/resnet18_small_blocks_bnstats.safetensors", _imagenet),
    "resnet50": Network(ModelSpec(depth=50), "imagenet/resnet50_large_blocks_bnstats.safetensors", _imagenet),
}
