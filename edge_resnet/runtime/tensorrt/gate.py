"""The gate before TensorRT's first objects: they are constructed where the driver is known to run TensorRT's CUDA.

With a driver that is too old, ``cuInit`` and nvidia-smi succeed, yet TensorRT's Builder raises a TypeError and its Runtime ends
the interpreter with a segmentation fault. So the versions are compared first; where TensorRT's is unknown, a child process tries
it. Loads no TensorRT, and does not know what is built or run.
"""

from __future__ import annotations

import functools
import re
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_resnet.core.errors import BackendError
from edge_resnet.core.process import run_within
from edge_resnet.device.gpu import driver_cuda, first_gpu
from edge_resnet.runtime.tensorrt.library import library_of
from edge_resnet.runtime.tensorrt.log import BuildLog

__all__ = ["make_builder", "make_runtime", "needed_cuda"]

#: Major versions of CUDA that packages of TensorRT are made for: tensorrt-cu12 and so on.
_MAJORS = (11, 12, 13, 14)
#: Debian's record of installed packages: on JetPack, libnvinfer10 has the version 10.3.0.30-1+cuda12.5.
_DPKG = Path("/var/lib/dpkg/status")
_TRY_S = 60.0


def make_builder(trt: ModuleType, log: BuildLog) -> Any:
    """TensorRT's Builder. Raises BackendError if there is no GPU, if the driver is too old, or if none can be made.

    TensorRT for RTX builds without a GPU and a driver.
    """
    if not library_of(trt).ahead:
        first_gpu()
        _check_driver(trt)
    try:
        builder = trt.Builder(log.logger)
    except TypeError as error:  # pybind11's word for a null pointer; the reason is in the log
        raise _not_made(trt, "Builder", log) from error
    if builder is None:
        raise _not_made(trt, "Builder", log)
    return builder


def make_runtime(trt: ModuleType, log: BuildLog, *, built: bool = False) -> Any:
    """TensorRT's Runtime. Raises BackendError if there is no GPU, if the driver is too old, or if none can be made.

    ``built``: a Builder of this process has built a plan, which proves that the driver will do.
    """
    first_gpu()
    if not built and not _check_driver(trt) and getattr(trt, "__file__", None):
        _try_in_child(trt.__name__)
    try:
        runtime = trt.Runtime(log.logger)
    except TypeError as error:
        raise _not_made(trt, "Runtime", log) from error
    if runtime is None:
        raise _not_made(trt, "Runtime", log)
    return runtime


def needed_cuda(trt: ModuleType, dpkg: Path = _DPKG) -> int | None:
    """The major version of CUDA that this library was built for, from pip's or Debian's records; None if neither knows.

    Within a major version any driver runs any CUDA (NVIDIA, "CUDA Compatibility", minor version compatibility).
    """
    return _from_pip(trt) or _from_dpkg(trt, dpkg)


def _check_driver(trt: ModuleType) -> bool:
    """Whether both versions are known. Raises BackendError if the driver is too old."""
    needed, runs = needed_cuda(trt), driver_cuda()
    if needed is None or runs is None:
        return False
    if runs[0] >= needed:
        return True
    library = library_of(trt)
    raise BackendError(
        f"the NVIDIA driver runs CUDA up to {runs[0]}.{runs[1]}, and {library.title} {trt.__version__} needs CUDA {needed}",
        hint=f"install a newer driver, or {library.title} for CUDA {runs[0]}; edge-resnet doctor shows both",
    )


@functools.cache
def _try_in_child(name: str) -> None:
    """Construct a Runtime in a child. Raises BackendError if that ends the child; once per process, as it takes seconds."""
    code = f"import sys; sys.path[:] = {sys.path!r}; import os, {name} as t; r = t.Runtime(t.Logger()); r.logger; os._exit(0)"
    done = run_within([sys.executable, "-c", code], _TRY_S)
    if done is not None and done.crashed:
        raise BackendError(
            f"{name} cannot be used with this driver: its Runtime {done.reason()}",
            hint="the driver is most likely too old for it: install a newer one; edge-resnet doctor shows both versions",
        )


def _not_made(trt: ModuleType, what: str, log: BuildLog) -> BackendError:
    return BackendError(
        f"{library_of(trt).title} {trt.__version__} cannot make its {what}: {log.last()}",
        hint="error 35 is a driver that is too old; edge-resnet doctor compares it with TensorRT",
    )


def _from_pip(trt: ModuleType) -> int | None:
    """From the packages of this version: tensorrt-cu13, or a requirement such as nvidia-cuda-runtime-cu12."""
    base = trt.__name__.replace("_", "-")
    found = set()
    for name in (base, f"{base}-libs", *(f"{base}-cu{major}{part}" for major in _MAJORS for part in ("", "-libs"))):
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if not _same_release(distribution.version, str(trt.__version__)):
            continue
        texts = (name, *(distribution.requires or ()))
        found |= {
            int(major) for text in texts for major in re.findall(r"^(?:tensorrt|nvidia-cuda-runtime)\S*?[-_]cu(\d\d)\b", text)
        }
    return min(found, default=None)


def _from_dpkg(trt: ModuleType, dpkg: Path) -> int | None:
    try:
        text = dpkg.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for package in re.finditer(r"^Package: libnvinfer\d+\n(?:.+\n)*?Version: (\S+?)\+cuda(\d+)", text, re.MULTILINE):
        if trt.__name__ == "tensorrt" and _same_release(package[1], str(trt.__version__)):
            return int(package[2])
    return None


def _same_release(one: str, other: str) -> bool:
    """Whether the first three numbers are equal: packages have a fourth one, and Debian's a revision."""
    first, second = ([int(number) for number in re.findall(r"\d+", version)[:3]] for version in (one, other))
    return first == second
