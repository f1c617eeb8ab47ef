"""The timing cache's file: what the builder measured of its tactics, so that the next build of a like network is faster.

Knows no TensorRT: a cache is bytes, and TensorRT itself leaves out what another version or GPU measured.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from edge_resnet.core.files import cache_folder, replace_files

__all__ = ["read_timings", "timings_path", "write_timings"]

_log = logging.getLogger(__name__)


def timings_path(version: str, gpu: str, compute_capability: str) -> Path:
    """Where the cache of this TensorRT on this GPU lies: one file per device, in the user's cache."""
    name = re.sub(r"[^a-z0-9.]+", "-", f"{gpu}-{compute_capability}-{version}".lower()).strip("-.")
    return cache_folder() / "tensorrt" / f"{name}.timings"


def read_timings(path: Path | None) -> bytes:
    """The cache's content; empty where there is none or it cannot be read."""
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        _log.warning("the timing cache %s cannot be read (%s): the build is slower", path, error.strerror)
        return b""


def write_timings(path: Path, content: bytes) -> None:
    """Put the cache in place whole; where the disk does not take it, the next build is slower and that is all."""
    try:
        replace_files({path: lambda part: part.write_bytes(content)})
    except OSError as error:
        _log.warning("the timing cache %s cannot be written: %s", path, error.strerror)
