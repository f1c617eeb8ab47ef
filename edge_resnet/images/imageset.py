"""Labelled images from folders, CSV and NPZ files: opened, sampled, and served in preprocessed batches.

Does not know about networks, nor about data sets by name (see ``datasets``).
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.classes import same_classes
from edge_resnet.images.layout import ImageListing, check_pixels, checked_labels, read_csv, read_folder, read_npz
from edge_resnet.images.preprocess import ImageArray, decode_image, preprocess, preprocess_file

__all__ = [
    "Batch",
    "ImageSet",
    "balanced_sample",
    "batches",
    "check_class_names",
    "check_labels",
    "from_arrays",
    "open_images",
    "require_labels",
    "require_several",
]

_log = logging.getLogger(__name__)

_Ints: TypeAlias = npt.NDArray[np.int64]

_KINDS = "give a folder of class folders, a folder of images, a CSV with file and class_index, an .npz or an image"
#: Decoding releases the interpreter lock; more threads would only take cores from the network.
_THREADS = 4
#: Above this share of unreadable images the set is refused.
_BAD_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in a fixed order, decoded on demand.

    ``labels``: a class index >= 0 per image, or None. ``class_names``: the set's own names of its classes, by index (empty if
    it has none, or if the indices are another network's).
    """

    name: str
    source: _Files | _Pixels
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    def load(self, index: int) -> ImageArray:
        """Decode one image: (H, W, 3) uint8 RGB. Raises DataError with the file's name if it cannot be read."""
        return self.source.load(index)

    def where(self, index: int) -> str:
        """Where the image is stored: a path, or a position in an archive such as ``set.npz[12]``."""
        return self.source.where(index)

    def subset(self, indices: Iterable[int]) -> ImageSet:
        """The images at these indices, in the order given."""
        chosen = [int(i) for i in indices]
        labels = None if self.labels is None else tuple(self.labels[i] for i in chosen)
        return ImageSet(self.name, self.source.take(chosen), labels, self.class_names)

    def digest(self) -> str:
        """Sha256 in hex over the order, the labels and the bytes of all files; names and paths do not count."""
        total = hashlib.sha256()
        for index in range(len(self)):
            label = "" if self.labels is None else self.labels[index]
            total.update(f"{label}:{self.source.digest(index)}\n".encode())
        return total.hexdigest()


@dataclass(frozen=True, eq=False)
class Batch:
    """``images`` (n, crop, crop, 3) uint8 RGB, ``indices`` into the set (n,), ``labels`` (n,) int64 or None."""

    images: ImageArray
    indices: _Ints
    labels: _Ints | None


def open_images(path: Path | str, *, label_names: Sequence[str] | None = None) -> ImageSet:
    """Open a folder of class folders, a flat folder, a CSV, an .npz or one image file; pixels are read later.

    Class folders get indices in the order of their names (torchvision's ImageFolder). Given the network's ``label_names``, the
    folders are matched with these by name or by WordNet id; where none matches, plain integers are class indices, and the order
    of names is used, with a warning, if there are as many folders as labels. A CSV has the columns ``file`` and ``class_index``,
    and its images are beside it or in a folder of its own name. An .npz has ``images`` (N, H, W, 3) uint8 RGB and may have
    ``labels`` (N,); an uncompressed one is mapped, not read. What a folder holds beside images is counted in one warning. Raises
    DataError for everything else.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".npz" and path.is_file():
            pixels, labels = read_npz(path)
            return ImageSet(path.stem, _Pixels(pixels, str(path), tuple(range(len(pixels)))), labels)
        listing = _listing(path, label_names)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", hint=_KINDS) from error
    name = path.resolve().name if path.is_dir() else path.stem
    return ImageSet(name, _Files(listing.files), listing.labels, listing.class_names)


def from_arrays(name: str, images: ImageArray, labels: npt.ArrayLike | None = None, class_names: Sequence[str] = ()) -> ImageSet:
    """A set of ``images`` (N, H, W, 3) uint8 RGB and integer ``labels`` (N,). Raises DataError for other shapes or dtypes."""
    check_pixels(name, images.shape, images.dtype)
    rows = tuple(range(len(images)))
    checked = None if labels is None else checked_labels(name, np.asarray(labels), len(images))
    return ImageSet(name, _Pixels(images, name, rows), checked, tuple(class_names))


def balanced_sample(images: ImageSet, count: int, seed: int) -> list[int]:
    """Indices of ``count`` images drawn without repetition, the same on every machine; of all images if there are fewer.

    If there are labels the classes take turns, so that any prefix is as balanced as the set allows; an exhausted class is
    skipped. Raises ConfigError for a count below 1.
    """
    if count < 1:
        raise ConfigError(f"a sample needs at least one image, not {count}")
    rng = np.random.default_rng(seed)
    order: list[int] = rng.permutation(len(images)).tolist()
    if images.labels is not None:
        turn = {int(label): position for position, label in enumerate(rng.permutation(np.unique(images.labels)))}
        seen: Counter[int] = Counter()
        rounds: dict[int, tuple[int, int]] = {}
        for index in order:
            label = images.labels[index]
            rounds[index] = (seen[label], turn[label])
            seen[label] += 1
        order.sort(key=rounds.__getitem__)
    return order[:count]


def batches(images: ImageSet, spec: Preprocess, batch: int, *, skipped: list[str] | None = None) -> Iterator[Batch]:
    """The set in order, preprocessed, ``batch`` images at a time; the last batch may be smaller.

    Files are decoded by a few threads with bounded look-ahead. An image that cannot be read is skipped with a warning, and
    where it is stored is appended to ``skipped``. Raises DataError if two or more cannot be read and they are above 5 % of the
    set, or if none can; ConfigError for a batch below 1.
    """
    if batch < 1:
        raise ConfigError(f"a batch holds at least one image, not {batch}")
    return _grouped(images, spec, batch, [] if skipped is None else skipped)


def require_labels(images: ImageSet) -> tuple[int, ...]:
    """The labels of the set. Raises DataError if it has none."""
    if images.labels is None:
        hint = "give a folder of class folders, a CSV with file and class_index, or an .npz with labels"
        raise DataError(f"the images of {images.name} have no labels", hint=hint)
    return images.labels


def check_labels(images: ImageSet, classes: int) -> None:
    """Raise DataError if a label lies outside 0..classes-1; a set without labels passes."""
    for index, label in enumerate(images.labels or ()):
        if not 0 <= label < classes:
            hint = "the set was made for another network, or its classes are numbered in another order"
            raise DataError(f"{images.where(index)} has class {label}, the network knows 0..{classes - 1}", hint=hint)


def check_class_names(images: ImageSet, label_names: Sequence[str]) -> None:
    """Raise DataError if the set names its classes, and they are not the network's in the same order (``same_classes``)."""
    ours, theirs = images.class_names, label_names
    if not ours or same_classes(ours, theirs):
        return
    if len(ours) != len(theirs):
        difference = f"{images.name} has {len(ours)} ({_few(ours)}), the network {len(theirs)} ({_few(theirs)})"
    elif sorted(ours) == sorted(theirs):
        difference = f"{images.name} numbers them in another order"
    else:
        one, other = next((one, other) for one, other in zip(ours, theirs, strict=True) if not same_classes([one], [other]))
        difference = f"{images.name} has {one!r} where the network has {other!r}"
    hint = "use images of the network's classes; edge-resnet build --labels gives the network other names"
    raise DataError(f"the classes differ: {difference}", hint=hint)


def require_several(images: ImageSet, minimum: int = 2) -> None:
    """Raise DataError if the set has fewer than ``minimum`` images."""
    if len(images) < minimum:
        raise DataError(f"{images.name} has {len(images)} of the {minimum} images needed at least", hint="give a larger set")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _listing(path: Path, label_names: Sequence[str] | None) -> ImageListing:
    if path.is_dir():
        return read_folder(path, label_names)
    if not path.exists():
        raise DataError(f"{path} does not exist", hint=_KINDS)
    if not path.is_file():
        raise DataError(f"{path} is not a regular file", hint=_KINDS)  # to open a pipe may block for ever
    if path.suffix.lower() == ".csv":
        return read_csv(path)
    decode_image(path)
    return ImageListing((path,))


@dataclass(frozen=True)
class _Files:
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> ImageArray:
        return decode_image(self.paths[index])

    def prepared(self, index: int, spec: Preprocess) -> ImageArray:
        return preprocess_file(self.paths[index], spec)

    def where(self, index: int) -> str:
        return str(self.paths[index])

    def take(self, indices: Sequence[int]) -> _Files:
        return _Files(tuple(self.paths[i] for i in indices))

    def digest(self, index: int) -> str:
        content = hashlib.sha256()
        try:
            with self.paths[index].open("rb") as file:
                while chunk := file.read(1 << 20):
                    content.update(chunk)
        except OSError as error:
            raise DataError(f"{self.paths[index]} cannot be read: {error.strerror}", hint="check the file") from error
        return content.hexdigest()


@dataclass(frozen=True, eq=False)
class _Pixels:
    pixels: ImageArray
    origin: str
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> ImageArray:
        return np.array(self.pixels[self.rows[index]])

    def prepared(self, index: int, spec: Preprocess) -> ImageArray:
        return preprocess(self.pixels[self.rows[index]], spec)

    def where(self, index: int) -> str:
        return f"{self.origin}[{self.rows[index]}]"

    def take(self, indices: Sequence[int]) -> _Pixels:
        return _Pixels(self.pixels, self.origin, tuple(self.rows[i] for i in indices))

    def digest(self, index: int) -> str:
        image = self.load(index)
        return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def _grouped(images: ImageSet, spec: Preprocess, batch: int, skipped: list[str]) -> Iterator[Batch]:
    ready: list[tuple[int, ImageArray]] = []
    bad = 0
    for index, image in enumerate(_prepared(images, spec, batch)):
        if isinstance(image, DataError):
            bad += 1
            skipped.append(images.where(index))
            _log.warning("skipped an image: %s", image)
            if bad == len(images) or (bad >= 2 and bad > _BAD_SHARE * len(images)):
                message = f"{bad} of the {len(images)} images of {images.name} cannot be read, the last because {image}"
                raise DataError(message, hint="replace or remove them; the warnings above name each") from image
        else:
            ready.append((index, image))
        if len(ready) == batch:
            yield _stacked(ready, images.labels)
            ready = []
    if ready:
        yield _stacked(ready, images.labels)


def _stacked(ready: Sequence[tuple[int, ImageArray]], labels: Sequence[int] | None) -> Batch:
    indices = np.array([index for index, _ in ready], np.int64)
    chosen = None if labels is None else np.array([labels[i] for i in indices], np.int64)
    return Batch(np.stack([image for _, image in ready]), indices, chosen)


def _prepared(images: ImageSet, spec: Preprocess, batch: int) -> Iterator[ImageArray | DataError]:
    if isinstance(images.source, _Pixels):  # handing over to a thread costs more than resizing a small array
        yield from (_attempt(images.source, index, spec) for index in range(len(images)))
        return
    threads = min(_THREADS, os.cpu_count() or 1)
    pending: deque[Future[ImageArray | DataError]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for index in range(len(images)):
                pending.append(pool.submit(_attempt, images.source, index, spec))
                if len(pending) > batch + threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # a caller that stops early does not wait for images that it will not take
            for future in pending:
                future.cancel()


def _attempt(source: _Files | _Pixels, index: int, spec: Preprocess) -> ImageArray | DataError:
    try:
        return source.prepared(index, spec)
    except DataError as error:
        return error
