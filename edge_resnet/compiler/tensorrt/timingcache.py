"""The file of TensorRT's timing cache: measured times of tactics, which make the next build of a similar network faster.

Does not load TensorRT: a cache is bytes, and TensorRT itself ignores what another version or GPU measured.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from edge_resnet.core.files import cache_folder, replace_files

__all__ = ["read_timings", "timings_path", "write_timings"]

_log = logging.getLogger(__name__)


def timings_path(version: str, gpu: str, compute_capability: str) -> Path:
    """The file of the cache for this TensorRT on this GPU, in the user's cache folder."""
    name = re.sub(r"[^a-z0-9.]+", "-", f"{gpu}-{compute_capability}-{version}".lower()).strip("-.")
    return cache_folder() / "tensorrt" / f"{name}.timings"


def read_timings(path: Path | None) -> bytes:
    """The cache's content; empty if there is none or it cannot be read."""
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        _log.warning("the timing cache %s cannot be read (%s): the build will be slower", path, error.strerror)
        return b""


def write_timings(path: Path, content: bytes) -> None:
    """Write the cache, whole or not at all; a failure is logged, and only makes the next build slower."""
    try:
        replace_files({path: lambda part: part.write_bytes(content)})
    except OSError as error:
        _log.warning("the timing cache %s cannot be written: %s", path, error.strerror)
