"""Which meters this machine has, and why it lacks the others. Reads them once and measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from edge_resnet.power.nvml import gpu_meters
from edge_resnet.power.rails import find_rails, total_meter
from edge_resnet.power.rapl import package_meter
from edge_resnet.power.records import Covers, Meter

__all__ = ["Found", "find_meters", "look"]

_ROOT = Path("/")
#: Whose power is in a figure.
_INCLUDES: Mapping[Covers, tuple[str, ...]] = MappingProxyType(
    {"board input": ("GPU", "CPU"), "module": ("GPU", "CPU"), "GPU": ("GPU",), "CPU package": ("CPU",)}
)


@dataclass(frozen=True)
class Found:
    """``meters``: the most inclusive first. ``reasons``: why each other kind is absent, in a line each."""

    meters: tuple[Meter, ...]
    reasons: tuple[str, ...]


def look(root: Path = _ROOT, works: Literal["GPU", "CPU"] | None = None) -> Found:
    """Find the meters: a board's or module's input, then GPUs, then processor packages. Raises nothing.

    ``root`` stands for ``/`` where files are read; NVML is the running machine's. ``works``: which processor does the work that
    is measured. Meters that include it come first; where none does there is no meter, since what idles says nothing of the work.
    """
    (board, no_board), (gpus, no_gpu), (packages, no_package) = total_meter(find_rails(root)), gpu_meters(), package_meter(root)
    meters = [meter for meter in (board, *gpus, packages) if meter]
    reasons = [reason for reason in (no_board, no_gpu, no_package) if reason]
    if works is None:
        return Found(tuple(meters), tuple(reasons))
    leading = [meter for meter in meters if works in _INCLUDES[meter.covers]]
    if not leading:
        idle = [f"{meter.source} covers the {meter.covers} alone, and the {works} does the work" for meter in meters]
        return Found((), (*reasons, *idle))
    return Found((*leading, *(meter for meter in meters if meter not in leading)), tuple(reasons))


def find_meters(root: Path = _ROOT) -> tuple[Meter, ...]:
    """The meters alone, the most inclusive first; empty where the machine has none."""
    return look(root).meters
