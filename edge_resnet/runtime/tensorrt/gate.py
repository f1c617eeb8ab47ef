"""The gate before TensorRT's first objects: they are constructed where the driver is known to run TensorRT's CUDA.

With a driver that is too old, ``cuInit`` and nvidia-smi succeed, yet TensorRT's Builder raises a TypeError and its Runtime ends
the interpreter with a segmentation fault. So the versions are compared first; where TensorRT's is unknown, a child process tries
it. Loads no TensorRT, and does not know what is built or run.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_resnet.core.errors import BackendError
from edge_resnet.core.process import run_within
from edge_resnet.device.gpu import first_gpu, refuse_old_driver
from edge_resnet.runtime.tensorrt.cuda import refuse_driver_of_cuda
from edge_resnet.runtime.tensorrt.library import LIBRARIES, LibraryName, library_of
from edge_resnet.runtime.tensorrt.log import BuildLog

__all__ = ["is_for_auto", "make_builder", "make_runtime", "needed_cuda", "refuse_driver"]

#: Major versions of CUDA that packages of TensorRT are made for: tensorrt-cu12 and so on.
_MAJORS = (11, 12, 13, 14)
#: Debian's record of installed packages: on JetPack, libnvinfer10 has the version 10.3.0.30-1+cuda12.5.
_DPKG = Path("/var/lib/dpkg/status")
_TRY_S = 60.0
_log = logging.getLogger(__name__)


def refuse_driver(name: LibraryName) -> None:
    """Raise BackendError if there is no GPU, or if the driver is too old for the installed library or for what provides CUDA.

    Imports neither.
    """
    first_gpu()
    _check_driver(name, None)
    refuse_driver_of_cuda()


def is_for_auto(backend: str, refuse_machine: Callable[[], None]) -> bool:
    """Whether ``auto`` may choose a backend: if its machine is not refused. A GPU that is passed over is said in one line."""
    try:
        first_gpu()
    except BackendError:
        return False
    try:
        refuse_machine()
    except BackendError as error:
        _say_passed_over(backend, error.message, error.hint)
        return False
    return True


def make_builder(trt: ModuleType, log: BuildLog) -> Any:
    """TensorRT's Builder. Raises BackendError if there is no GPU, if the driver is too old, or if none can be made.

    TensorRT for RTX builds without a GPU and a driver.
    """
    if not library_of(trt).ahead:
        first_gpu()
        _check_driver(trt.__name__, str(trt.__version__))
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
    if not built and not _check_driver(trt.__name__, str(trt.__version__)) and getattr(trt, "__file__", None):
        _try_in_child(trt.__name__)
    try:
        runtime = trt.Runtime(log.logger)
    except TypeError as error:
        raise _not_made(trt, "Runtime", log) from error
    if runtime is None:
        raise _not_made(trt, "Runtime", log)
    return runtime


def needed_cuda(name: str, version: str | None = None, dpkg: Path = _DPKG) -> int | None:
    """The major version of CUDA that this release of the module was built for, from pip's or Debian's records.

    Without a version, that of the release that is installed. None if no record knows.
    """
    return _from_pip(name, version) or (_from_dpkg(version, dpkg) if name == "tensorrt" else None)


@functools.cache
def _say_passed_over(backend: str, reason: str, hint: str) -> None:
    """Once per process: a command asks for the backend several times."""
    _log.warning("the backend %s is passed over: %s (%s)", backend, reason, hint)


def _check_driver(name: str, version: str | None) -> bool:
    """Whether the driver is known to be new enough for that release of the library. Raises BackendError if it is too old."""
    needed = needed_cuda(name, version)
    title = LIBRARIES["tensorrt_rtx" if name == "tensorrt_rtx" else "tensorrt"].title
    return needed is not None and refuse_old_driver(needed, f"{title} {version}" if version else title, instead=title)


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


def _from_pip(name: str, version: str | None) -> int | None:
    """From the packages of this version: tensorrt-cu13, or a requirement such as nvidia-cuda-runtime-cu12."""
    base = name.replace("_", "-")
    found = set()
    for package in (base, f"{base}-libs", *(f"{base}-cu{major}{part}" for major in _MAJORS for part in ("", "-libs"))):
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            continue
        if version is not None and not _same_release(distribution.version, version):
            continue
        texts = (package, *(distribution.requires or ()))
        found |= {
            int(major) for text in texts for major in re.findall(r"^(?:tensorrt|nvidia-cuda-runtime)\S*?[-_]cu(\d\d)\b", text)
        }
    return min(found, default=None)


def _from_dpkg(version: str | None, dpkg: Path) -> int | None:
    try:
        text = dpkg.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for package in re.finditer(r"^Package: libnvinfer\d+\n(?:.+\n)*?Version: (\S+?)\+cuda(\d+)", text, re.MULTILINE):
        if version is None or _same_release(package[1], version):
            return int(package[2])
    return None


def _same_release(one: str, other: str) -> bool:
    """Whether the first three numbers are equal: packages have a fourth one, and Debian's a revision."""
    first, second = ([int(number) for number in re.findall(r"\d+", version)[:3]] for version in (one, other))
    return first == second
