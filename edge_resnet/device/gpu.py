"""Whether the CUDA driver works and which GPU it provides, through ctypes. Does not know about TensorRT and PyCUDA.

Without a driver, TensorRT's Builder and Runtime wrap a null pointer and the interpreter crashes when they are first used: they
must not be constructed before ``first_gpu`` has returned.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edge_resnet.core.errors import BackendError

__all__ = ["LIBRARY", "OLDEST_DRIVER", "Gpu", "driver_cuda", "first_gpu", "refuse_old_driver"]

LIBRARY = "libcuda.so.1"
#: CUDA's major version → the oldest driver that runs it (CUDA Toolkit release notes, minor version compatibility).
OLDEST_DRIVER: Mapping[int, str] = MappingProxyType({12: "525.60.13", 13: "580"})
#: CUdevice_attribute of the CUDA driver API.
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
_NO_DEVICE, _NAME_BYTES = 100, 256


@dataclass(frozen=True)
class Gpu:
    """The first GPU: ``name``, ``compute_capability`` such as ``8.7``, and whether it shares memory with the CPU."""

    name: str
    compute_capability: str
    integrated: bool


def first_gpu(library: str = LIBRARY) -> Gpu:
    """Initialise the driver and return the first GPU. Raises BackendError if there is no driver, or no GPU."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise BackendError(
            f"this machine has no CUDA driver ({library} cannot be loaded)",
            hint="edge-resnet doctor shows what is missing; the backend onnxruntime runs on the CPU",
        ) from error
    _call(cuda, "cuInit", ctypes.c_uint(0))
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    _call(cuda, "cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
    _call(cuda, "cuDeviceGetName", name, ctypes.c_int(_NAME_BYTES), device)
    major, minor, integrated = (_attribute(cuda, device, which) for which in (_MAJOR, _MINOR, _INTEGRATED))
    return Gpu(name.value.decode("utf-8", "replace"), f"{major}.{minor}", bool(integrated))


def driver_cuda(library: str = LIBRARY) -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, as (12, 6); None if there is no driver, or if it does not say."""
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed or version.value <= 0 else (version.value // 1000, version.value % 1000 // 10)


def refuse_old_driver(needed: int, what: str, *, instead: str = "") -> bool:
    """Whether the driver is known to run CUDA ``needed``, a major version. Raises BackendError if it is known not to.

    ``what`` needs it; ``instead``: what would do with the driver at hand, where CUDA's major version is that of the driver.
    Within a major version any driver runs any CUDA (NVIDIA, "CUDA Compatibility", minor version compatibility).
    """
    runs = driver_cuda()
    if runs is None:
        return False
    if runs[0] >= needed:
        return True
    driver = f"the driver {OLDEST_DRIVER[needed]} or newer" if needed in OLDEST_DRIVER else "a newer driver"
    other = f", or {instead} for CUDA {runs[0]}" if instead and runs[0] in OLDEST_DRIVER else ""
    raise BackendError(
        f"the NVIDIA driver runs CUDA up to {runs[0]}.{runs[1]}, and {what} needs CUDA {needed}",
        hint=f"install {driver}{other}; edge-resnet doctor shows the versions",
    )


def _attribute(cuda: ctypes.CDLL, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int()
    _call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), device)
    return value.value


def _call(cuda: ctypes.CDLL, function: str, *arguments: object) -> None:
    result = int(getattr(cuda, function)(*arguments))
    if result == _NO_DEVICE or (result and function == "cuDeviceGet"):
        raise BackendError("the CUDA driver finds no GPU", hint="run edge-resnet doctor; in a container: docker run --gpus all")
    if result:
        raise BackendError(f"the CUDA driver does not start: {function} gave error {result}", hint="run edge-resnet doctor")
