"""Image sets by name (digits, CIFAR-10, Imagenette), downloaded once, and the augmentation of CIFAR training.

Knows nothing of networks and training loops; torchvision and scikit-learn are loaded only by the sets that need them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias
from urllib.error import URLError

import numpy as np
from PIL import Image

from edge_resnet.errors import DataError, MissingDependencyError
from edge_resnet.imageset import ImageSet, from_arrays, open_images
from edge_resnet.preprocess import Picture

__all__ = ["NAMES", "Split", "augment", "load_named", "open_data"]

Split: TypeAlias = Literal["train", "test"]

#: Padding on each side before the random crop, in pixels (He et al. 2015, section 4.2).
_PADDING = 4
_DIGITS_SIDE = 32
#: Imagenette's WordNet ids in order → ImageNet's class indices.
_IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)


def load_named(name: str, split: Split, root: Path | None = None) -> ImageSet:
    """Load a set of ``NAMES``; ``root`` is where downloads lie (default: ``edge-resnet/datasets`` in the user's cache).

    ``digits``: 1,797 handwritten digits of 8x8 pixels, enlarged to 32x32 RGB, split 80/20 in each class; no download.
    ``cifar10``: 50,000 and 10,000 images of 32x32 (170 MB). ``imagenette``: 9,469 and 3,925 photographs of ten classes,
    short side 320, labelled with ImageNet's indices (342 MB). Raises DataError for another name or split and where a
    download fails, MissingDependencyError without scikit-learn or torchvision.
    """
    if name not in NAMES:
        raise DataError(f"no image set is called {name!r}", hint=f"known names: {', '.join(NAMES)}")
    if split not in ("train", "test"):
        raise DataError(f"{name} has no part {split!r}", hint="choose train or test")
    return _LOADERS[name](split, _cache_folder() if root is None else root)


def open_data(argument: str, *, split: Split, label_names: Sequence[str] | None = None) -> ImageSet:
    """Open what a user wrote: a path where one exists, else a name of ``NAMES``, of which ``split`` is taken.

    ``label_names`` go to ``open_images``. Raises DataError where it is neither.
    """
    if os.path.lexists(argument):
        return open_images(argument, label_names=label_names)
    if argument in NAMES:
        return load_named(argument, split)
    kinds = "a folder of class folders, a folder of images, a CSV with file and class_index, an .npz, an image"
    raise DataError(f"{argument!r} is neither a path nor a set", hint=f"sets: {', '.join(NAMES)}; paths: {kinds}")


def augment(images: Picture, rng: np.random.Generator, flip: bool) -> Picture:
    """Shift each image by up to 4 pixels into black and mirror it with probability 1/2 where ``flip`` is set.

    ``images``: (N, H, W, 3) uint8; the result has the same shape and is a copy. The paper's augmentation of CIFAR-10
    (He et al. 2015, section 4.2): pad 4 pixels on each side, crop at random from the image or its horizontal flip.
    """
    count, height, width, _ = images.shape
    tops = rng.integers(0, 2 * _PADDING + 1, (count, 1))
    lefts = rng.integers(0, 2 * _PADDING + 1, (count, 1))
    mirrored = rng.random((count, 1)) < (0.5 if flip else 0.0)
    padded = np.pad(images, ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))
    rows = tops + np.arange(height)
    columns = lefts + np.where(mirrored, np.arange(width)[::-1], np.arange(width))
    cropped: Picture = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cropped


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edge-resnet" / "datasets"


def _digits(split: Split, root: Path) -> ImageSet:  # noqa: ARG001 - every loader is called alike
    with _needing("scikit-learn", "demo"):
        from sklearn.datasets import load_digits
    bunch = load_digits()
    # 0..16 in the source, which counted the dark pixels of 4x4 blocks.
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    chosen = _stratified(bunch.target, split)
    side = (_DIGITS_SIDE, _DIGITS_SIDE)
    grey = np.stack([np.asarray(Image.fromarray(small[i]).resize(side, Image.Resampling.BILINEAR)) for i in chosen])
    images = np.repeat(grey[..., None], 3, axis=3)
    return from_arrays(f"digits-{split}", images, bunch.target[chosen], [str(digit) for digit in range(10)])


def _stratified(labels: np.ndarray[tuple[int], np.dtype[np.int64]], split: Split) -> list[int]:
    """A fifth of each class, drawn once and for all, is the test part; the order of the source is kept."""
    rng = np.random.default_rng(0)
    test: set[int] = set()
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        test.update(members[: round(len(members) / 5)].tolist())
    return [index for index in range(len(labels)) if (index in test) == (split == "test")]


def _cifar10(split: Split, root: Path) -> ImageSet:
    with _needing("torchvision", "build"):
        from torchvision.datasets import CIFAR10
    with _downloading("CIFAR-10", CIFAR10.url, root):
        found = CIFAR10(root, train=split == "train", download=True)
    return from_arrays(f"cifar10-{split}", np.ascontiguousarray(found.data), np.asarray(found.targets), found.classes)


def _imagenette(split: Split, root: Path) -> ImageSet:
    part = root / "imagenette2-320" / ("train" if split == "train" else "val")
    if not part.is_dir():
        with _needing("torchvision", "build"):
            from torchvision.datasets import Imagenette
        with _downloading("Imagenette", "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz", root):
            Imagenette(root, split=part.name, size="320px", download=True)
    found = open_images(part)
    if found.labels is None or max(found.labels) >= len(_IMAGENETTE):
        raise DataError(f"{part} does not hold Imagenette's ten classes", hint="delete the folder, it is fetched again")
    labels = tuple(_IMAGENETTE[label] for label in found.labels)
    return ImageSet(f"imagenette-{split}", found.source, labels)


_LOADERS: Mapping[str, Callable[[Split, Path], ImageSet]] = MappingProxyType(
    {"cifar10": _cifar10, "digits": _digits, "imagenette": _imagenette}
)
#: The sets that ``load_named`` knows.
NAMES: tuple[str, ...] = tuple(_LOADERS)


@contextlib.contextmanager
def _needing(package: str, extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(f"{package} is not installed", hint=f"pip install 'edge-resnet[{extra}]'") from error


@contextlib.contextmanager
def _downloading(what: str, url: str, root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be carrying JSON
            yield
    except (URLError, OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        hint = f"download it elsewhere and put it, unpacked, into {root}"
        raise DataError(f"{what} cannot be had from {url}: {error}", hint=hint) from error
