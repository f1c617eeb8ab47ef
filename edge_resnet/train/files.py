"""Files that are there whole or as they were before: written beside and renamed. Knows nothing of what is in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, bring it to the disk, then rename; raises OSError and leaves the old one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode
        write(part)
        part.chmod(mode)  # safetensors makes files that only their owner may read
        with part.open("rb") as file:
            os.fsync(file.fileno())  # a rename that outlives its content leaves an empty file after a power cut
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
