"""The TensorRT backend: plans, pinned memory, CUDA streams, CUDA graphs, and frames resized on the GPU.

Does not know how a plan is built. Loads tensorrt, and PyCUDA or cuda.core in the module of each; this file, with the
declaration, loads none of them.
"""

from __future__ import annotations

import importlib
from functools import partial

from edge_resnet.runtime.backend import BackendClass, BackendInfo, EngineForm, Requirement
from edge_resnet.runtime.tensorrt.cuda import CUDA, require_cuda
from edge_resnet.runtime.tensorrt.gate import is_for_auto, refuse_driver

__all__ = ["BACKEND"]

_REFUSE = partial(refuse_driver, "tensorrt")


def _load() -> BackendClass:
    from edge_resnet.runtime.tensorrt.native import NativeLibrary
    from edge_resnet.runtime.tensorrt.plans import PlanBackend

    importlib.import_module("tensorrt")
    require_cuda()
    return PlanBackend(NativeLibrary())


BACKEND = BackendInfo(
    load=_load,
    requirements=(Requirement("tensorrt", "tensorrt", extra="tensorrt"), CUDA),
    form=EngineForm("plan"),
    processor="GPU",
    auto_rank=1,
    suits=partial(is_for_auto, "tensorrt", _REFUSE),
    refuse_machine=_REFUSE,
)
