"""Probes the CUDA driver, TensorRT, TensorRT for RTX, PyCUDA, cuda.core and OpenVINO, each in a child process.

Does not know what is needed. Loading any of them may hang or crash the interpreter, so the parent never loads them. A child sees
the packages that its parent sees, prints one line of JSON and ends at once, because their clean-up at exit may crash too.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from edge_resnet.core.process import run_within
from edge_resnet.deployment.doctor.check import is_importable
from edge_resnet.device.gpu import LIBRARY, driver_cuda, first_gpu
from edge_resnet.device.machine import DeviceInfo

__all__ = ["DRIVER_NODES", "ProbeResult", "ProbedMachine", "Topic", "main", "probe", "probe_machine"]

#: ``auto``: which backend edge-resnet selects by default.
Topic: TypeAlias = Literal["driver", "tensorrt", "tensorrt_rtx", "pycuda", "cuda.core", "openvino", "auto"]

_MODULES: tuple[Topic, ...] = ("tensorrt", "tensorrt_rtx", "pycuda", "cuda.core")
_TIMEOUT_S = 20.0
#: The device files that a loaded driver creates, on desktops and on Jetsons.
DRIVER_NODES = ("dev/nvidiactl", "dev/nvidia0", "dev/nvmap", "dev/nvhost-gpu")
_LIBRARY_PLACES = ("usr/lib/*/", "usr/lib/*/nvidia/", "usr/lib/*/tegra/", "usr/lib64/", "usr/lib/", "usr/lib/wsl/lib/")
#: CUdevice_attribute of the CUDA driver API.
_CAN_MAP_HOST_MEMORY = 19


@dataclass(frozen=True)
class ProbeResult:
    """What one library reported. ``failure``: why it cannot be used, in one line, else empty. ``died``: it hung or crashed.

    ``facts`` by topic, with empty strings for what is unknown:
    driver: ``name`` and ``compute_capability`` of the first GPU; ``memory``: own, shared, or mapped if the GPU reads the CPU's
    memory in place; ``cuda``: the newest version that the driver runs. tensorrt: ``version``; ``library``: the version of the
    libnvinfer that was loaded. tensorrt_rtx: ``version``. pycuda: ``cuda``, the version that it was compiled for. cuda.core:
    ``version``; ``bindings``, the version of its bindings. openvino: ``version``; ``precisions`` that the CPU computes in. auto:
    the backend ``taken``, and the ``order`` in which backends are tried.
    """

    facts: dict[str, str]
    failure: str
    died: bool = False


@dataclass(frozen=True)
class ProbedMachine:
    """A machine and the results of the probes. Libraries that are not installed were not probed and have no result."""

    info: DeviceInfo
    root: Path
    results: Mapping[Topic, ProbeResult]

    @property
    def driver(self) -> dict[str, str]:
        """The facts of a driver that works, else empty."""
        return self.results["driver"].facts if "driver" in self.results else {}

    @property
    def has_gpu(self) -> bool:
        """Whether there is an NVIDIA GPU, even an unusable one."""
        return bool(self.info.gpu or self.info.gpu_failure or self.driver)

    @property
    def is_jetson(self) -> bool:
        """Whether the board is a Jetson; a container on one may not see its L4T version."""
        return bool(self.info.l4t) or "Jetson" in (self.info.board or "")

    @property
    def in_container(self) -> bool:
        """Whether this is a Docker, Podman or Kubernetes container."""
        if any((self.root / mark).exists() for mark in (".dockerenv", "run/.containerenv")):
            return True
        try:
            groups = (self.root / "proc/1/cgroup").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return any(maker in groups for maker in ("docker", "containerd", "kubepods"))

    @property
    def capability(self) -> str:
        """The GPU's compute capability such as ``8.7``, or an empty string."""
        return self.info.compute_capability or self.driver.get("compute_capability", "")


def probe_machine(info: DeviceInfo, root: Path) -> ProbedMachine:
    """Probe whatever is installed, all at once; takes 21 seconds at most. Raises nothing."""
    topics: list[Topic] = ["driver"] if _has_driver_or_gpu(info, root) else []
    return ProbedMachine(info, root, probe(*topics, *(topic for topic in _MODULES if is_importable(topic))))


def probe(*topics: Topic) -> dict[Topic, ProbeResult]:
    """Probe the topics, all at once; takes 21 seconds at most. Raises nothing."""
    if not topics:
        return {}
    with ThreadPoolExecutor(len(topics)) as pool:
        return dict(zip(topics, pool.map(_probe, topics), strict=True))


def _has_driver_or_gpu(info: DeviceInfo, root: Path) -> bool:
    searched = [Path(place) for place in os.environ.get("LD_LIBRARY_PATH", "").split(":") if place]
    return (
        bool(info.gpu or info.gpu_failure)
        or any((root / node).exists() for node in DRIVER_NODES)
        or any((place / LIBRARY).exists() for place in searched)
        or any(next(root.glob(f"{place}{LIBRARY}"), None) for place in _LIBRARY_PLACES)
    )


def _probe(topic: Topic) -> ProbeResult:
    code = f"import sys; sys.path[:] = {sys.path!r}; from edge_resnet.deployment.doctor.probe import main; main({topic!r})"
    try:
        done = run_within([sys.executable, "-c", code], _TIMEOUT_S)
    except OSError as error:
        return ProbeResult({}, f"cannot be probed: {error.strerror}")
    if done is None:
        return ProbeResult({}, f"no answer in {_TIMEOUT_S:g} s", died=True)
    try:
        return ProbeResult(**done.answer())
    except (ValueError, TypeError):
        return ProbeResult({}, done.reason(), done.crashed)


def main(topic: Topic) -> None:
    """The child process: print the result as JSON and exit at once."""
    try:
        result = {"facts": _ASKED[topic](), "failure": ""}
    except Exception as error:  # a broken binary may raise anything
        result = {"facts": {}, "failure": str(error).strip().partition("\n")[0] or type(error).__name__}
    sys.stdout.write(f"\n{json.dumps(result)}\n")
    sys.stdout.flush()
    os._exit(0)


def _driver() -> dict[str, str]:
    gpu = first_gpu()
    cuda = ctypes.CDLL(LIBRARY)
    device, mapped = ctypes.c_int(), ctypes.c_int()
    version = driver_cuda()
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    cuda.cuDeviceGetAttribute(ctypes.byref(mapped), _CAN_MAP_HOST_MEMORY, device)
    return {
        "name": gpu.name,
        "compute_capability": gpu.compute_capability,
        "memory": "own" if not gpu.integrated else "mapped" if mapped.value == 1 else "shared",
        "cuda": ".".join(map(str, version)) if version else "",
    }


def _tensorrt() -> dict[str, str]:
    return {"version": str(importlib.import_module("tensorrt").__version__), "library": _loaded_tensorrt()}


def _tensorrt_rtx() -> dict[str, str]:
    return {"version": str(importlib.import_module("tensorrt_rtx").__version__)}


def _loaded_tensorrt() -> str:
    """The version that the loaded libnvinfer reports: 8601 is 8.6.1, 100300 is 10.3.0 (NvInferVersion.h)."""
    try:
        path = re.search(r"\S*/libnvinfer\.so[.\d]*$", Path("/proc/self/maps").read_text(encoding="utf-8"), re.MULTILINE)
        number = int(ctypes.CDLL(path[0]).getInferLibVersion()) if path else 0
    except (OSError, AttributeError):
        return ""
    if not number:
        return ""
    step = 1000 if number < 10_000 else 10_000
    return f"{number // step}.{number % step // 100}.{number % 100}"


def _pycuda() -> dict[str, str]:
    driver = importlib.import_module("pycuda.driver")
    return {"cuda": ".".join(map(str, driver.get_version()[:2])) if hasattr(driver, "get_version") else ""}


def _cuda_core() -> dict[str, str]:
    core, bindings = (importlib.import_module(name) for name in ("cuda.core", "cuda.bindings"))
    return {"version": str(core.__version__), "bindings": str(bindings.__version__)}


def _openvino() -> dict[str, str]:
    openvino = importlib.import_module("edge_resnet.runtime.openvino").load_openvino()
    precisions = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"version": str(openvino.__version__).partition("-")[0], "precisions": " ".join(precisions)}


def _auto() -> dict[str, str]:
    backends = importlib.import_module("edge_resnet.runtime.backend")
    return {"taken": backends.resolve_backend("auto"), "order": " ".join(backends.auto_order())}


_ASKED: Mapping[Topic, Callable[[], dict[str, str]]] = MappingProxyType(
    {
        "driver": _driver,
        "tensorrt": _tensorrt,
        "tensorrt_rtx": _tensorrt_rtx,
        "pycuda": _pycuda,
        "cuda.core": _cuda_core,
        "openvino": _openvino,
        "auto": _auto,
    }
)
