"""Layouts of images on disk: class folders, a CSV beside a folder, arrays in an .npz. Gives files, pixels and labels.

Does not know about decoding or what the images are for.
"""

from __future__ import annotations

import csv
import errno
import lzma
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import DataError
from edge_resnet.images.preprocess import ImageArray

__all__ = ["ImageListing", "check_pixels", "checked_labels", "read_csv", "read_folder", "read_npz"]

#: Files that count as images in a folder (torchvision's ``IMG_EXTENSIONS``).
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
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
_SAVE = "numpy.savez(path, images=..., labels=...) writes one"


@dataclass(frozen=True)
class ImageListing:
    """Image files in order; ``labels`` a class index per file or None; ``class_names`` by index, empty where unknown."""

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] = ()


def read_folder(folder: Path, label_names: Sequence[str] | None) -> ImageListing:
    """List a folder of class folders, or else of images without classes; hidden files and folders are skipped.

    Without ``label_names`` the class folders are numbered in the order of their names. Raises DataError if no image is found,
    if the folder holds the parts of a data set (train, val) instead of classes, or if a class folder matches no label; OSError
    if a folder cannot be read.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    found = {name: _images_below(folder / name) for name in names}
    filled = [name for name in names if found[name]]
    if not filled:
        flat = sorted(entry for entry in folder.iterdir() if _is_image(entry.name) and entry.is_file())
        if not flat:
            raise DataError(f"{folder} holds no images", hint=f"images end in {', '.join(sorted(_SUFFIXES))}")
        return ImageListing(tuple(flat))
    if {name.lower() for name in filled} <= _SPLITS:
        raise DataError(f"{folder} holds the parts {', '.join(filled)}, not classes", hint=f"use {folder / filled[-1]}")
    indices = _class_indices(folder, names, label_names)
    pairs = [(path, indices[name]) for name in filled for path in found[name]]
    class_names = tuple(names) if label_names is None else tuple(label_names)
    return ImageListing(tuple(path for path, _ in pairs), tuple(label for _, label in pairs), class_names)


def read_csv(path: Path) -> ImageListing:
    """List the images in the columns ``file`` and ``class_index``; the files are in a folder of the CSV's name or beside it.

    Raises DataError for missing columns, files and lines, and for a class that is not an integer >= 0; OSError,
    UnicodeDecodeError or csv.Error if the file cannot be read at all.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = [column for column in ("file", "class_index") if column not in (reader.fieldnames or ())]
        if absent:
            raise DataError(f"{path} has no column {absent[0]}", hint="its first line must name file and class_index")
        rows = [(row["file"] or "", _class_index(path, reader.line_num, row["class_index"])) for row in reader]
    if not rows:
        raise DataError(f"{path} names no images", hint="write one line per image: file,class_index")
    return ImageListing(tuple(_beside(path, name) for name, _ in rows), tuple(label for _, label in rows))


def read_npz(path: Path) -> tuple[ImageArray, tuple[int, ...] | None]:
    """Read ``images`` (N, H, W, 3) uint8 and, if there are any, ``labels`` (N,); uncompressed images are mapped, not read.

    Raises DataError if the file is not a valid archive, or the arrays are missing, pickled, or of another shape or dtype.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if "images.npy" not in members:
                raise DataError(f"{path} has no array named images", hint=_SAVE)
            pixels = _read_pixels(path, archive)
        if "labels.npy" not in members:
            return pixels, None
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


def _images_below(folder: Path) -> list[Path]:
    def stop(error: OSError) -> None:
        raise error  # os.walk skips an unreadable folder silently

    walk = sorted(os.walk(folder, onerror=stop))
    return [Path(at, name) for at, _, files in walk for name in sorted(files) if _is_image(name)]


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in _SUFFIXES and not name.startswith(".")


def _class_indices(folder: Path, names: Sequence[str], label_names: Sequence[str] | None) -> dict[str, int]:
    by_order = {name: index for index, name in enumerate(names)}
    if label_names is None:
        return by_order
    known = _spellings(label_names)
    unknown = [name for name in names if _plain(name) not in known]
    if not unknown:
        return {name: known[_plain(name)] for name in names}
    if all(map(_is_index, names)):
        return {name: int(name) for name in names}
    if len(names) == len(label_names):
        return by_order
    raise DataError(
        f"class folder {folder / unknown[0]} matches none of the network's {len(label_names)} labels",
        hint="name the folders by label or by class index, or write a CSV with file and class_index",
    )


def _spellings(label_names: Sequence[str]) -> dict[str, int]:
    """Whole label, first synonym and leading WordNet id of each class → index; a spelling that two classes share is left out."""
    whole = [_plain(label) for label in label_names]
    synonyms = [_plain(label.split(",")[0]) for label in label_names]
    wordnet_ids = [match[0] if (match := re.match(r"n\d{8}\b", label)) else "" for label in whole]
    known: dict[str, int] = {}
    for spellings in (whole, synonyms, wordnet_ids):
        counts = Counter(spellings)
        for index, spelling in enumerate(spellings):
            if counts[spelling] == 1:
                known.setdefault(spelling, index)
    return known


def _plain(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


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


def _read_pixels(path: Path, archive: zipfile.ZipFile) -> ImageArray:
    """Check the header before reading any pixel, then map the array if it is stored uncompressed, or unpack it."""
    info = archive.getinfo("images.npy")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(member)
        check_pixels(str(path), shape, dtype)
        begin = member.tell()
    if info.file_size != begin + int(np.prod(shape, dtype=np.int64)):
        raise ValueError("the array images does not have the length in its header")
    if fortran or info.compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as arrays:
            return np.ascontiguousarray(arrays["images"])
    with path.open("rb") as file:
        # Two lengths in the local header, which may differ from those in the zip's central directory (APPNOTE 4.3.7).
        file.seek(info.header_offset + 26)
        names = np.frombuffer(file.read(4), "<u2").sum(dtype=np.int64)
    return np.memmap(path, np.uint8, "r", info.header_offset + 30 + int(names) + begin, shape)
