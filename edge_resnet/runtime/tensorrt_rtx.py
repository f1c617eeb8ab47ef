"""The backend of TensorRT for RTX: plans for desktop GPUs from Turing on, compiled on any x86-64 Linux machine.

Does not know how a plan is built or run. This file, with the declaration, loads no library.
"""

from __future__ import annotations

import importlib
import platform
from functools import partial

from edge_resnet.core.errors import MissingDependencyError
from edge_resnet.device.gpu import first_gpu
from edge_resnet.device.rtxtargets import refuse_gpu
from edge_resnet.runtime.backend import BackendClass, BackendInfo, EngineForm, Requirement
from edge_resnet.runtime.tensorrt.cuda import CUDA
from edge_resnet.runtime.tensorrt.gate import is_for_auto, refuse_driver
from edge_resnet.runtime.tensorrt.library import LIBRARIES

__all__ = ["BACKEND"]

_FOR_CUDA_13 = Requirement("tensorrt_rtx", "tensorrt-rtx-cu13", extra="rtx-cu13")
_LIBRARY = Requirement("tensorrt_rtx", "tensorrt-rtx-cu12", extra="rtx", alternatives=(_FOR_CUDA_13,))


def _load() -> BackendClass:
    if not _LIBRARY.is_installed() and platform.machine() != "x86_64":
        raise MissingDependencyError(
            f"TensorRT for RTX does not exist for {platform.machine()}: its packages are for x86-64",
            hint="the backend tensorrt runs on Jetson and on other Arm machines with an NVIDIA GPU",
        )
    from edge_resnet.runtime.tensorrt.plans import PlanBackend
    from edge_resnet.runtime.tensorrt.rtx import RtxLibrary

    importlib.import_module(_LIBRARY.module)
    return PlanBackend(RtxLibrary())


def _refuse_machine() -> None:
    refuse_gpu(first_gpu())
    refuse_driver("tensorrt_rtx")


BACKEND = BackendInfo(
    load=_load,
    requirements=(_LIBRARY, CUDA),
    form=EngineForm("plan"),
    processor="GPU",
    auto_rank=2,
    suits=partial(is_for_auto, "tensorrt-rtx", _refuse_machine),
    refuse_machine=_refuse_machine,
    ahead=LIBRARIES["tensorrt_rtx"].ahead,
)
