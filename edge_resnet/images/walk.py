"""Image files below a folder: the one walk for data sets, calibration sets and sources. Counts what it passes over, by kind.

Links are followed, and no folder is read twice. Does not know about classes or decoding.
"""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

__all__ = [
    "SUFFIXES",
    "FolderContent",
    "PassedOver",
    "describe_passed_over",
    "images_below",
    "images_matching",
    "is_image_name",
    "list_folder",
    "log_passed_over",
]

_log = logging.getLogger(__name__)

#: Endings of files that are read as images: torchvision's ``IMG_EXTENSIONS``, GIF, and the JPEG files of browsers (.jfif, .jpe).
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".ppm", ".bmp", ".pgm", ".gif", ".tif", ".tiff", ".webp"})
#: Endings of images that no decoder here reads.
_UNSUPPORTED = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".raw"}
)  # fmt: skip
#: Folders that systems leave among a user's own: archives of macOS, Synology and QNAP, Windows, file systems.
_FOREIGN = frozenset(
    {"__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found"}
)
#: Kinds named in one line; the rest of a folder of many is summed.
_MAX_KINDS = 8
_LINKED_AGAIN = "linked folders that were read already or lead back"

#: How many entries were passed over, by kind.
PassedOver: TypeAlias = Counter[str]
#: Device and inode number: what two paths of the same folder have in common.
_Identity: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class FolderContent:
    """The image files and the folders that lie directly in a folder, each sorted by name."""

    images: tuple[Path, ...]
    folders: tuple[Path, ...]


def is_image_name(name: str) -> bool:
    """Whether a file of that name is read as an image."""
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def list_folder(folder: Path, passed_over: PassedOver) -> FolderContent:
    """The images and the folders directly in ``folder``; everything else is counted in ``passed_over``.

    Passed over: hidden entries, folders of other programs (``__MACOSX``, ``@eaDir``, ``lost+found``), files of other kinds,
    broken links, and links to the folder itself or one above it. Raises OSError if the folder cannot be read.
    """
    return _content(folder, passed_over, _on_the_way_to(folder))


def images_below(folder: Path, passed_over: PassedOver) -> list[Path]:
    """The images at any depth below ``folder``, in the order of torchvision's ImageFolder, and counted as by ``list_folder``.

    Linked folders are read like others. A folder that is reached twice, or lies above ``folder``, is read once or not at all.
    Raises OSError if a folder cannot be read.
    """
    seen, pending = _on_the_way_to(folder), [folder]
    found: dict[str, tuple[Path, ...]] = {}
    while pending:
        content = _content(pending.pop(), passed_over, seen)
        pending += content.folders
        if content.images:
            found[str(content.images[0].parent)] = content.images
    return [image for _, images in sorted(found.items()) for image in images]


def images_matching(pattern: str, passed_over: PassedOver) -> list[Path]:
    """The images whose paths match a glob, in no order. ``**`` is any number of folders, read as by ``images_below``.

    Counts what was passed over only where the pattern's last part is ``*`` or ``**``: any other asks for certain files. Raises
    OSError if a folder cannot be read.
    """
    parts, uncounted = Path(pattern).parts, Counter[str]()
    counted = passed_over if parts[-1:] in (("*",), ("**",)) else uncounted
    if "**" not in parts:
        paths = [path for name in glob.glob(pattern) if (path := Path(name)).is_file()]  # noqa: PTH207 - takes absolute ones
        counted.update(_kind(path.name) for path in paths if path.suffix.lower() not in SUFFIXES)
        return [path for path in paths if path.suffix.lower() in SUFFIXES]
    # glob's own ** reads a folder again for each link that leads to it, and up to forty times in a circle of links.
    at = parts.index("**")
    bases = map(Path, glob.glob(str(Path(*parts[:at])))) if at else [Path()]  # noqa: PTH207
    found = {path: base for base in bases if base.is_dir() for path in images_below(base, counted)}
    return [path for path, base in found.items() if _matches(path.relative_to(base).parts, parts[at:])]


def describe_passed_over(passed_over: PassedOver) -> str:
    """The counts in one line, such as ``36 .heic (not supported: convert to JPEG), 2 hidden``; empty if there are none."""
    common = [(kind, count) for kind, count in passed_over.most_common() if count]
    named = [f"{count} {kind}" for kind, count in common[:_MAX_KINDS]]
    rest = sum(count for _, count in common[_MAX_KINDS:])
    return ", ".join([*named, f"{rest} others"] if rest else named)


def log_passed_over(where: Path | str, passed_over: PassedOver) -> None:
    """Log what was passed over in ``where`` in one line, if anything was."""
    if text := describe_passed_over(passed_over):
        _log.warning("passed over in %s: %s", where, text)


def _content(folder: Path, passed_over: PassedOver, seen: set[_Identity]) -> FolderContent:
    """As ``list_folder``; folders in ``seen`` are passed over, and the others are added to it."""
    images, folders = [], []
    with os.scandir(folder) as entries:
        # Real folders before links, so that of two ways to a folder the real one is taken.
        ordered = sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
    for entry in ordered:
        status = _status(entry)
        if entry.name.startswith("."):
            passed_over["hidden"] += 1
        elif status is None:
            passed_over["broken links"] += 1
        elif stat.S_ISDIR(status.st_mode):
            identity = status.st_dev, status.st_ino
            if entry.name.lower() in _FOREIGN:
                passed_over[f"{entry.name}/"] += 1
            elif identity in seen:
                passed_over[_LINKED_AGAIN] += 1
            else:
                seen.add(identity)
                folders.append(entry.name)
        elif not stat.S_ISREG(status.st_mode):
            passed_over["pipes, sockets and devices"] += 1  # opening one may wait for ever
        elif is_image_name(entry.name):
            images.append(entry.name)
        else:
            passed_over[_kind(entry.name)] += 1
    return FolderContent(*(tuple(folder / name for name in sorted(names)) for names in (images, folders)))


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a relative path matches a pattern, both as their parts."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[skipped:], pattern[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _on_the_way_to(folder: Path) -> set[_Identity]:
    """The folder and all above it, by its own path and by the real one: a link to one of them leads back."""
    ways = {folder.absolute(), *folder.absolute().parents, folder.resolve(), *folder.resolve().parents}
    return {(status.st_dev, status.st_ino) for status in map(os.stat, ways)}


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What the entry, or the target of a link, is; None for a link without a target."""
    try:
        return entry.stat()
    except OSError:
        return None


def _kind(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix in _UNSUPPORTED:
        return f"{suffix} (not supported: convert to JPEG)"
    return suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 8 else "files of other kinds"
