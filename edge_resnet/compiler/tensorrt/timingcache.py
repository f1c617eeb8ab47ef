"""The file of TensorRT's timing cache: measured times of tactics, which make the next build of a similar network faster.

Does not load TensorRT: a cache is bytes, and TensorRT itself ignores what another version or GPU measured.
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_resnet.core.files import cache_folder, read_cache, write_cache

__all__ = ["read_timings", "timings_path", "write_timings"]


def timings_path(version: str, gpu: str, compute_capability: str) -> Path:
    """The file of the cache for this TensorRT on this GPU, in the user's cache folder."""
    name = re.sub(r"[^a-z0-9.]+", "-", f"{gpu}-{compute_capability}-{version}".lower()).strip("-.")
    return cache_folder() / "tensorrt" / f"{name}.timings"


def read_timings(path: Path | None) -> bytes:
    """The cache's content; empty if there is none or it cannot be read."""
    return b"" if path is None else read_cache(path, "timing cache")


def write_timings(path: Path, content: bytes) -> None:
    """Write the cache, whole or not at all; a failure is logged, and only makes the next build slower."""
    write_cache(path, content, "timing cache")
