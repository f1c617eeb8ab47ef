"""Files that are there whole or as before: written beside, brought to the disk, renamed. Knows nothing of their content."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from edge_resnet.errors import BuildError

__all__ = ["check_free", "replace_files", "write_together", "write_whole"]


def replace_files(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Let each of ``writers`` fill a file beside its path, and put them in place once all are whole and on the disk.

    Folders on the way are made. Raises OSError, and what a writer raises; then every path holds what it held before.
    """
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in writers}
    try:
        for path, write in writers.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = parts[path]
            part.touch()
            mode = part.stat().st_mode
            write(part)
            part.chmod(mode)  # safetensors makes files that only their owner may read
            with part.open("rb") as file:
                os.fsync(file.fileno())  # a rename that outlives its content leaves an empty file after a power cut
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink()


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write all of them over whatever is there, or none. Raises BuildError."""
    try:
        replace_files({path: partial(Path.write_bytes, data=content) for path, content in contents.items()})
    except OSError as error:
        names = " and ".join(map(str, contents))
        hint = "check the path, and the room on the disk"
        raise BuildError(f"cannot write {names}: {error.strerror or error}", hint=hint) from error


def write_whole(path: Path, content: bytes) -> Path:
    """Write ``content`` over whatever is at ``path``, which is returned. Raises BuildError."""
    write_together({path: content})
    return path


def check_free(path: Path, *, force: bool) -> None:
    """Raise BuildError where ``path`` could not be written: better before a measurement than after it."""
    if path.is_dir():
        raise BuildError(f"{path} cannot be written: it is a folder", hint="name a file in it")
    if not path.parent.is_dir():
        raise BuildError(f"{path} cannot be written: {path.parent} is no folder", hint=f"mkdir -p {path.parent}")
    if path.exists() and not force:
        raise BuildError(f"{path} exists already", hint="choose another name, or replace it with --force")
