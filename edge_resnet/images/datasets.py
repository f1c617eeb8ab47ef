"""Image sets by name (digits, CIFAR-10, Imagenette), downloaded once, and the training and test parts of a set.

Does not know about networks and training loops; torchvision and scikit-learn are loaded only by the sets that need them.
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

from edge_resnet.core.errors import DataError, MissingDependencyError
from edge_resnet.core.files import cache_folder
from edge_resnet.images.imageset import ImageSet, check_class_names, check_labels, from_arrays, open_images, require_labels

__all__ = ["NAMES", "Split", "load_named", "open_data", "open_labelled", "open_pair"]

Split: TypeAlias = Literal["train", "test"]

_DIGITS_SIDE = 32
#: Names of the folder with the test part beside ``train``.
_HELD_OUT = ("val", "valid", "validation", "test")
#: Imagenette's WordNet ids in order → ImageNet's class indices.
_IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)


def load_named(name: str, split: Split, root: Path | None = None) -> ImageSet:
    """Load a set of ``NAMES``; ``root`` is the folder of downloads (default: ``edge-resnet/datasets`` in the user's cache).

    ``digits``: 1,797 handwritten digits of 8x8 pixels, enlarged to 32x32 RGB, split 80/20 in each class; no download.
    ``cifar10``: 50,000 and 10,000 images of 32x32 (170 MB). ``imagenette``: 9,469 and 3,925 photographs of ten classes,
    short side 320, labelled with ImageNet's indices (342 MB). Raises DataError for another name or split and if a download
    fails, MissingDependencyError without scikit-learn or torchvision.
    """
    if name not in NAMES:
        raise DataError(f"no image set is called {name!r}", hint=f"known names: {', '.join(NAMES)}")
    if split not in ("train", "test"):
        raise DataError(f"{name} has no part {split!r}", hint="choose train or test")
    return _LOADERS[name](split, cache_folder() / "datasets" if root is None else root)


def open_data(argument: str, *, split: Split, label_names: Sequence[str] | None = None) -> ImageSet:
    """Open a user's argument: a path if one exists, else the part ``split`` of a set of ``NAMES``.

    ``label_names`` are passed to ``open_images``. Raises DataError if it is neither.
    """
    if os.path.lexists(argument):
        return open_images(argument, label_names=label_names)
    if argument in NAMES:
        return load_named(argument, split)
    kinds = "a folder of class folders, a folder of images, a CSV with file and class_index, an .npz, an image"
    raise DataError(f"{argument!r} is neither a path nor a set", hint=f"sets: {', '.join(NAMES)}; paths: {kinds}")


def open_labelled(argument: str, *, split: Split, classes: int, label_names: Sequence[str] | None = None) -> ImageSet:
    """Open labelled images for a network of so many ``classes``; the other arguments are those of ``open_data``.

    Raises DataError if there are no labels, a label lies outside 0..classes-1, or the set's classes are not ``label_names``.
    """
    images = open_data(argument, split=split, label_names=label_names)
    require_labels(images)
    check_labels(images, classes)
    if label_names is not None:
        check_class_names(images, label_names)
    return images


def open_pair(
    argument: str, held_out: str | None = None, *, label_names: Sequence[str] | None = None
) -> tuple[ImageSet, ImageSet | None]:
    """Open the images to train on and, if there are any, the images to test on.

    ``argument``: a name of ``NAMES``, which has both parts; a folder with the class folders of both in ``train`` and ``val``
    (or ``valid``, ``validation``, ``test``); a folder with one ``*train.npz`` and one ``*test.npz`` or ``*val.npz``; or
    anything that ``open_data`` takes, which is then trained on. ``held_out``: the test images, if they are stored elsewhere.
    ``label_names`` are passed to ``open_images``. Class folders get the same indices in both. Raises DataError if they differ.
    """
    train_argument, test_argument = _parts(argument)
    train = open_data(train_argument, split="train", label_names=label_names)
    if held_out is not None:
        test_argument = held_out
    if test_argument is None:
        return train, None
    test = open_data(test_argument, split="test", label_names=label_names)
    if train.class_names and test.class_names and train.class_names != test.class_names:
        raise _differing(train, test)
    return train, test


def _parts(argument: str) -> tuple[str, str | None]:
    """The arguments for ``open_data`` of the training and the test part."""
    folder = Path(argument)
    if not folder.is_dir():
        return argument, argument if argument in NAMES and not os.path.lexists(argument) else None
    if (folder / "train").is_dir():
        found = [folder / name for name in _HELD_OUT if (folder / name).is_dir()]
        return str(folder / "train"), str(found[0]) if found else None
    train = sorted(folder.glob("*train.npz"))
    test = [path for kind in ("test", "val") for path in sorted(folder.glob(f"*{kind}.npz"))]
    if len(train) == 1 and len(test) <= 1:
        return str(train[0]), str(test[0]) if test else None
    if train:
        names = ", ".join(path.name for path in (*train, *test))
        raise DataError(f"{folder} holds {names}: which to train on is ambiguous", hint="name one file, and --val-data")
    return argument, None


def _differing(train: ImageSet, test: ImageSet) -> DataError:
    only = [
        f"{name} only in {mine.name}"
        for mine, other in ((train, test), (test, train))
        for name in mine.class_names
        if name not in other.class_names
    ]
    more = f" and {len(only) - 3} more" if len(only) > 3 else ""
    difference = ", ".join(only[:3]) + more or "their order differs"
    return DataError(f"the classes differ: {difference}", hint="both parts need the same class folders")


def _digits(split: Split, root: Path) -> ImageSet:  # noqa: ARG001 - every loader has the same signature
    with _needing("scikit-learn", "demo"):
        from sklearn.datasets import load_digits
    bunch = load_digits()
    # Values are 0..16: the number of dark pixels in a block of 4x4.
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    chosen = _stratified(bunch.target, split)
    side = (_DIGITS_SIDE, _DIGITS_SIDE)
    grey = np.stack([np.asarray(Image.fromarray(small[i]).resize(side, Image.Resampling.BILINEAR)) for i in chosen])
    images = np.repeat(grey[..., None], 3, axis=3)
    return from_arrays(f"digits-{split}", images, bunch.target[chosen], [str(digit) for digit in range(10)])


def _stratified(labels: np.ndarray[tuple[int], np.dtype[np.int64]], split: Split) -> list[int]:
    """A fifth of each class, drawn with a fixed seed, is the test part; the original order is kept."""
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
        raise DataError(f"{part} does not hold Imagenette's ten classes", hint="delete the folder to download it again")
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
        with contextlib.redirect_stdout(sys.stderr):  # stdout may carry JSON
            yield
    except (URLError, OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        hint = f"download it elsewhere and unpack it into {root}"
        raise DataError(f"{what} cannot be downloaded from {url}: {error}", hint=hint) from error
