"""Files written whole or not at all, under the name they keep. Knows nothing of their content."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edge_resnet.errors import BuildError

__all__ = ["write_page", "write_whole"]


def write_whole(path: Path, content: bytes) -> Path:
    """Write ``content`` over whatever is at ``path``, which is returned; folders on the way are made. Raises BuildError."""
    work = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work.write_bytes(content)
        work.replace(path)
    except OSError as error:
        raise BuildError(
            f"cannot write {path}: {error.strerror or error}", hint="check the path, and the room on the disk"
        ) from error
    finally:
        with suppress(OSError):
            work.unlink()
    return path


def write_page(path: Path, html: str) -> Path:
    """Write a page as UTF-8, whole or not at all. Raises BuildError."""
    return write_whole(path, html.encode())
