"""ONNX file → TensorRT plan, on this machine, through what TensorRT 8.6 to 11 have in common.

Does not know about artifacts or onnx, and runs no engine: a plan is bytes. This file, with the request's record, loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_resnet.artifact.enginecache import EngineOptions
from edge_resnet.core.records import Typing

__all__ = ["PlanRequest"]


@dataclass(frozen=True)
class PlanRequest:
    """What to build. ``graph``: an ONNX file whose one input is (N, H, W, 3) uint8, typed as ``typing`` says. ``timings``: the
    file of the timing cache, read before the build and written after it."""

    graph: Path
    options: EngineOptions
    typing: Typing
    timings: Path | None = None
