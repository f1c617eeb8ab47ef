"""ONNX file → plan, with TensorRT for this machine, or with TensorRT for RTX for GPUs that need not be here.

Does not know about artifacts or onnx, and runs no engine: a plan is bytes. This file, with the request's record, loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_resnet.artifact.enginecache import EngineOptions
from edge_resnet.core.records import Typing
from edge_resnet.runtime.tensorrt.library import LibraryName

__all__ = ["PlanRequest"]


@dataclass(frozen=True)
class PlanRequest:
    """What to build. ``graph``: an ONNX file whose one input is (N, H, W, 3) uint8, typed as ``typing`` says. ``timings``: the
    file of the timing cache, read before the build and written after it. ``library``: what builds the plan.

    ``targets``: with TensorRT for RTX, the compute capabilities that the plan is for, such as ``SM86``; empty for its default,
    which is Ampere and later. The options of TensorRT that it lacks are refused.
    """

    graph: Path
    options: EngineOptions
    typing: Typing
    timings: Path | None = None
    library: LibraryName = "tensorrt"
    targets: tuple[str, ...] = ()
