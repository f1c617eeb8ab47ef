"""The TensorRT backend: plans, pinned memory, CUDA streams, CUDA graphs, and frames resized on the GPU.

Does not know how a plan is built. Loads tensorrt, and PyCUDA or cuda.core in the module of each; this file, with the
declaration, loads none of them.
"""

from __future__ import annotations

import importlib

from edge_resnet.core.errors import BackendError
from edge_resnet.device.gpu import first_gpu
from edge_resnet.runtime.backend import BackendClass, BackendInfo, EngineForm, Requirement
from edge_resnet.runtime.tensorrt.cuda import CUDA, require_cuda

__all__ = ["BACKEND"]


def _load() -> BackendClass:
    from edge_resnet.runtime.tensorrt.native import NativeLibrary
    from edge_resnet.runtime.tensorrt.plans import PlanBackend

    importlib.import_module("tensorrt")
    require_cuda()
    return PlanBackend(NativeLibrary())


def _suits() -> bool:
    try:
        first_gpu()
    except BackendError:
        return False
    return True


BACKEND = BackendInfo(
    load=_load,
    requirements=(Requirement("tensorrt", "tensorrt", extra="tensorrt"), CUDA),
    form=EngineForm("plan"),
    processor="GPU",
    auto_rank=1,
    suits=_suits,
)
