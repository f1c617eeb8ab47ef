"""Layouts of images on disk: class folders, a CSV beside a folder, arrays in an .npz. Gives files, pixels and labels.

Does not know about decoding or what the images are for.
"""

from __future__ import annotations

import csv
import errno
import logging
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import DataError
from edge_resnet.images.classes import class_indices, matches_any
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.images.walk import SUFFIXES, PassedOver, describe_passed_over, images_below, list_folder, log_passed_over

__all__ = ["ImageListing", "check_pixels", "checked_labels", "read_csv", "read_folder", "read_npz"]

_log = logging.getLogger(__name__)

_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})
#: Errors that zipfile and numpy raise on damaged archives.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    MemoryError,
    KeyError,
)
#: The lines of ImageNet's 14 million images take less.
_MAX_CSV_BYTES = 256 * 2**20
#: What compressed images may unpack to: images shrink to a third at best, zeros to a thousandth.
_MAX_UNPACKED_BYTES, _MAX_RATIO, _ALWAYS_UNPACKED_BYTES = 4 * 2**30, 100, 256 * 2**20
#: Images and labels of one archive: three times ImageNet.
_MAX_IMAGES = 2**22
_SAVE = "numpy.savez(path, images=..., labels=...) writes one"


@dataclass(frozen=True)
class ImageListing:
    """Image files in order; ``labels`` a class index per file or None; ``class_names`` by index, empty where unknown."""

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] = ()


def read_folder(folder: Path, label_names: Sequence[str] | None) -> ImageListing:
    """List a folder of class folders, or of images without classes. What is passed over is logged by kind, in one line.

    Without ``label_names`` the class folders are numbered in the order of their names, where an empty one keeps its place, with a
    warning; with them they are numbered as ``class_indices`` says. A folder of other files is no class. Where there are images
    beside folders, the larger part is taken, or the folders if one of them has the name of a label. Raises DataError if no image
    is found, if the folder holds the parts of a data set (train, val) instead of classes, or if a class folder matches no label;
    OSError if a folder cannot be read.
    """
    passed_over = PassedOver()
    content = list_folder(folder, passed_over)
    below = {entry.name: images_below(entry, passed_over) for entry in content.folders}
    found = {name: images for name, images in below.items() if images or _is_empty(folder / name)}
    filled = [name for name, images in found.items() if images]
    if not filled and not content.images:
        seen = f" among {text}" if (text := describe_passed_over(passed_over)) else ""
        raise DataError(f"{folder} holds no images{seen}", hint=f"images end in {', '.join(sorted(SUFFIXES))}")
    in_folders = sum(map(len, found.values()))
    if content.images and len(content.images) >= in_folders and not matches_any(filled, label_names or ()):
        listing = ImageListing(content.images)
        passed_over[f"images in its folders ({', '.join(filled[:3])})"] += in_folders
    elif {name.lower() for name in filled} <= _SPLITS:
        raise DataError(f"{folder} holds the parts {', '.join(filled)}, not classes", hint=f"use {folder / filled[-1]}")
    else:
        indices = _indices(folder, found, label_names)
        pairs = [(path, indices[name]) for name in filled for path in found[name]]
        class_names = tuple(found) if label_names is None else tuple(label_names)
        listing = ImageListing(tuple(path for path, _ in pairs), tuple(label for _, label in pairs), class_names)
        passed_over["images beside the class folders"] += len(content.images)
        passed_over["folder(s) without images"] += len(below) - len(found)
        if len(filled) < len(found):
            _log.warning("class folders of %s without images: %s", folder, ", ".join(name for name in found if not found[name]))
    log_passed_over(folder, passed_over)
    return listing


def read_csv(path: Path) -> ImageListing:
    """List the images in the columns ``file`` and ``class_index``; the files are in a folder of the CSV's name or beside it.

    Raises DataError for a file of more than 256 MiB, for missing columns, files and lines, for a class that is not an integer
    >= 0, and for a file with two classes; OSError, UnicodeDecodeError or csv.Error if the file cannot be read at all.
    """
    if path.stat().st_size > _MAX_CSV_BYTES:
        raise DataError(f"{path} is larger than 256 MiB", hint="a line per image takes less: file,class_index")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = [column for column in ("file", "class_index") if column not in (reader.fieldnames or ())]
        if absent:
            raise DataError(f"{path} has no column {absent[0]}", hint="its first line must name file and class_index")
        # Each file is looked up at once: a file of nonsense ends at its first line, however long it is.
        rows = [(_beside(path, row["file"] or ""), _class_index(path, reader.line_num, row["class_index"])) for row in reader]
    if not rows:
        raise DataError(f"{path} names no images", hint="write one line per image: file,class_index")
    classes: dict[Path, int] = {}
    for image, label in rows:
        if classes.setdefault(image, label) != label:
            message = f"{path} names {image.name} with the classes {classes[image]} and {label}"
            raise DataError(message, hint="leave one of them out")
    return ImageListing(tuple(image for image, _ in rows), tuple(label for _, label in rows))


def read_npz(path: Path) -> tuple[ImageArray, tuple[int, ...] | None]:
    """Read ``images`` (N, H, W, 3) uint8 and, if there are any, ``labels`` (N,); uncompressed images are mapped, not read.

    Before anything is unpacked, every header is checked, and what is compressed must unpack to at most 4 GiB, and to at most a
    hundred times its size if that is above 256 MiB. Raises DataError if the file is not a valid archive, holds more than four
    million images, or the arrays are missing, pickled, too large, or of another shape or dtype.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if "images.npy" not in members:
                raise DataError(f"{path} has no array named images", hint=_SAVE)
            pixels = _read_pixels(path, archive)
            if "labels.npy" not in members:
                return pixels, None
            _check_header(archive, "labels.npy")
        with np.load(path, allow_pickle=False) as arrays:
            return pixels, checked_labels(str(path), arrays["labels"], len(pixels))
    except (*_DAMAGE, OSError) as error:
        # A damaged archive sends zipfile to an invalid offset (EINVAL); any other OSError is about the file, not its content.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DataError(f"{path} is not a valid .npz: {error}", hint=_SAVE) from error


def check_pixels(origin: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    """Raise DataError about ``origin`` unless the array is (N, H, W, 3) uint8 and not empty."""
    if dtype != np.uint8:
        raise DataError(f"images of {origin} are {dtype}, not uint8", hint="store 0..255, before any normalisation")
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise DataError(f"images of {origin} have the shape {shape}, not (N, H, W, 3)", hint="RGB, channels last")


def checked_labels(origin: str, labels: npt.NDArray[np.generic], count: int) -> tuple[int, ...]:
    """Integer labels (count,) >= 0 as plain integers. Raises DataError about ``origin`` for anything else."""
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(f"labels of {origin} are {labels.dtype} {labels.shape}, not integers ({count},)", hint="one class each")
    plain: list[int] = labels.tolist()
    if plain and not 0 <= min(plain) <= max(plain) < 2**31:
        raise DataError(f"labels of {origin} run from {min(plain)} to {max(plain)}", hint="count classes from 0")
    return tuple(plain)


def _is_empty(folder: Path) -> bool:
    """Whether there is nothing in the folder but hidden files, such as those that keep it in a repository."""
    return all(entry.name.startswith(".") for entry in folder.iterdir())


def _indices(folder: Path, found: Mapping[str, list[Path]], label_names: Sequence[str] | None) -> dict[str, int]:
    """The class index of each class folder with images. Where no name matches a label, an empty folder counts for the order."""
    if label_names is None:
        return {name: index for index, name in enumerate(found)}
    filled = [name for name, images in found.items() if images]
    return class_indices(folder, filled if matches_any(filled, label_names) else list(found), label_names)


def _class_index(path: Path, line: int, text: str | None) -> int:
    digits = (text or "").strip()
    if not _is_index(digits):
        raise DataError(f"{path}, line {line}: class_index {digits!r} is not an integer >= 0", hint="count classes from 0")
    return int(digits)


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _beside(path: Path, name: str) -> Path:
    for candidate in (path.with_suffix("") / name, path.parent / name):
        if candidate.is_file():
            return candidate
    raise DataError(f"{path} names {name!r}, which does not exist", hint=f"put the images into {path.with_suffix('')}")


@dataclass(frozen=True)
class _Header:
    """What an array in an archive is, by its header, and how many bytes the header takes."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[np.generic]
    size: int


def _check_header(archive: zipfile.ZipFile, name: str) -> _Header:
    """Read the header of an array, whose size the archive must agree with, before any of its values is read or unpacked."""
    info = archive.getinfo(name)
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        header = _Header(*read_header(member), member.tell())
    if info.compress_type != zipfile.ZIP_STORED:
        allowed = min(_MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, _MAX_RATIO * info.compress_size))
        if info.file_size > allowed:
            size = f"{info.compress_size / 2**20:.0f} MiB would unpack to {info.file_size / 2**20:.0f} MiB"
            hint = "numpy.savez, which does not compress, writes images of any size: they are mapped and not read"
            raise DataError(f"{archive.filename}: {size}, more than the {allowed / 2**20:.0f} MiB that are allowed", hint=hint)
    # In Python's integers: a product in 64 bits can be made to wrap around.
    if not header.dtype.hasobject and info.file_size != header.size + math.prod(header.shape) * header.dtype.itemsize:
        raise ValueError(f"the array {name.removesuffix('.npy')} does not have the length in its header")
    return header


def _read_pixels(path: Path, archive: zipfile.ZipFile) -> ImageArray:
    """Check the header before reading any pixel, then map the array if it is stored uncompressed, or unpack it."""
    info = archive.getinfo("images.npy")
    header = _check_header(archive, "images.npy")
    check_pixels(str(path), header.shape, header.dtype)
    if header.shape[0] > _MAX_IMAGES:
        raise DataError(f"{path} holds {header.shape[0]} images, more than {_MAX_IMAGES}", hint="divide it into several files")
    if header.fortran or info.compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as arrays:
            return np.ascontiguousarray(arrays["images"])
    with path.open("rb") as file:
        # Two lengths in the local header, which may differ from those in the zip's central directory (APPNOTE 4.3.7).
        file.seek(info.header_offset + 26)
        names = np.frombuffer(file.read(4), "<u2").sum(dtype=np.int64)
    return np.memmap(path, np.uint8, "r", info.header_offset + 30 + int(names) + header.size, header.shape)
