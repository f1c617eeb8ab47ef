"""Read the kernel's one-value files. Knows not what they mean."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["matching", "number", "text"]

_LONGEST = 4096


def matching(folder: Path, pattern: str) -> list[Path]:
    """What lies below ``folder`` and fits the pattern, sorted; nothing where it may not be looked at."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def number(path: Path) -> int:
    """The whole number in a file. Raises OSError where it cannot be read (EAGAIN and ENODATA are common), ValueError if none."""
    return int(_bytes(path))


def text(path: Path) -> str:
    """A file's text without the white space around it; empty where it cannot be read."""
    try:
        return _bytes(path).decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:
        return ""


def _bytes(path: Path) -> bytes:
    # Path.read_text costs several times as much, and hundreds of these are read per second.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, _LONGEST)
    finally:
        os.close(handle)
