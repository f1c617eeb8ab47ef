"""Which meters this machine has, and why it lacks the others. Reads them once and measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_resnet.power.nvml import gpu_meters
from edge_resnet.power.rails import find_rails, total_meter
from edge_resnet.power.rapl import package_meter
from edge_resnet.power.records import Meter

__all__ = ["Found", "find_meters", "look"]

_ROOT = Path("/")


@dataclass(frozen=True)
class Found:
    """``meters``: the most inclusive first. ``reasons``: why each other kind is absent, in a line each."""

    meters: tuple[Meter, ...]
    reasons: tuple[str, ...]


def look(root: Path = _ROOT) -> Found:
    """Find the meters: a board's or module's input, then GPUs, then processor packages. Raises nothing.

    ``root`` stands for ``/`` where files are read; NVML is the running machine's.
    """
    (board, no_board), (gpus, no_gpu), (packages, no_package) = total_meter(find_rails(root)), gpu_meters(), package_meter(root)
    meters = (board, *gpus, packages)
    return Found(tuple(meter for meter in meters if meter), tuple(reason for reason in (no_board, no_gpu, no_package) if reason))


def find_meters(root: Path = _ROOT) -> tuple[Meter, ...]:
    """The meters alone, the most inclusive first; empty where the machine has none."""
    return look(root).meters
