"""Image sets by name (digits, CIFAR-10, Imagenette), downloaded once, and the two parts that a training needs.

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

from edge_resnet.core.errors import DataError, MissingDependencyError
from edge_resnet.core.files import cache_folder
from edge_resnet.images.imageset import ImageSet, from_arrays, open_images

__all__ = ["NAMES", "Split", "load_named", "open_data", "open_pair"]

Split: TypeAlias = Literal["train", "test"]

_DIGITS_SIDE = 32
#: What the part that is held out is called beside ``train``.
_HELD_OUT = ("val", "valid", "validation", "test")
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
    return _LOADERS[name](split, cache_folder() / "datasets" if root is None else root)


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


def open_pair(argument: str, held_out: str | None = None) -> tuple[ImageSet, ImageSet | None]:
    """Open what a network is to learn from and, where there is any, what it is tested on.

    ``argument``: a name of ``NAMES``, which has both parts; a folder with the class folders of both in ``train`` and ``val``
    (or ``valid``, ``validation``, ``test``); a folder with one ``*train.npz`` and one ``*test.npz`` or ``*val.npz``; or
    anything that ``open_data`` takes, which is then learned from. ``held_out``: the test images, where they lie elsewhere.
    Class folders get the same indices in both. Raises DataError where they differ.
    """
    train, test = _parts(argument)
    learned = open_data(train, split="train")
    if held_out is not None:
        test = held_out
    if test is None:
        return learned, None
    tested = open_data(test, split="test")
    if learned.class_names and tested.class_names and learned.class_names != tested.class_names:
        raise _differing(learned, tested)
    return learned, tested


def _parts(argument: str) -> tuple[str, str | None]:
    """The two arguments for ``open_data`` that one argument stands for."""
    folder = Path(argument)
    if not folder.is_dir():
        return argument, argument if argument in NAMES and not os.path.lexists(argument) else None
    if (folder / "train").is_dir():
        found = [folder / name for name in _HELD_OUT if (folder / name).is_dir()]
        return str(folder / "train"), str(found[0]) if found else None
    learned = sorted(folder.glob("*train.npz"))
    tested = [path for kind in ("test", "val") for path in sorted(folder.glob(f"*{kind}.npz"))]
    if len(learned) == 1 and len(tested) <= 1:
        return str(learned[0]), str(tested[0]) if tested else None
    if learned:
        names = ", ".join(path.name for path in (*learned, *tested))
        raise DataError(f"{folder} holds {names}: which to learn from is not clear", hint="name one file, and --val-data")
    return argument, None


def _differing(learned: ImageSet, tested: ImageSet) -> DataError:
    only = [f"{name} only in {where}" for where, mine, others in (
        (learned.name, learned.class_names, tested.class_names), (tested.name, tested.class_names, learned.class_names),
    ) for name in mine if name not in others]  # fmt: skip
    more = f" and {len(only) - 3} more" if len(only) > 3 else ""
    said = ", ".join(only[:3]) + more or "their order differs"
    return DataError(f"the classes differ: {said}", hint="both parts need the same class folders")


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
