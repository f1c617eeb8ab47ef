"""What runs a network: the protocol, the table of backends, and how one is opened. Knows no inference library itself.

A new backend is one file in this folder and one line in ``BACKENDS``; the conformance suite iterates the table. Libraries are
imported when a backend is opened and not before: ``--help`` stays fast, and a device needs only the one it uses.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.enginecache import EngineTuning, find_engine
from edge_resnet.artifact.folder import MODEL, Artifact
from edge_resnet.core.errors import BackendError, ConfigError, IncompatibleEngineError, MissingDependencyError
from edge_resnet.device.gpu import first_gpu
from edge_resnet.device.machine import has_int8_dot_product

__all__ = [
    "AUTO",
    "BACKENDS",
    "Backend",
    "BackendClass",
    "BackendEntry",
    "EngineRequest",
    "Images",
    "Logits",
    "PipelinedBackend",
    "Variant",
    "check_images",
    "cpu_graph",
    "cpu_int8_request",
    "load_backend",
    "open_backend",
    "refuse_tuning",
    "resolve_backend",
]

#: (N, H, W, 3) uint8 RGB, already resized and cropped.
Images: TypeAlias = npt.NDArray[np.uint8]
#: (N, classes) float32.
Logits: TypeAlias = npt.NDArray[np.float32]
#: Which computation of the artifact: ``native``, the artifact's precision as the backend runs it best; ``simulated``, TensorRT's
#: symmetric int8 run elsewhere; ``reference``, the FP32 graph.
Variant: TypeAlias = Literal["native", "simulated", "reference"]


class Backend(Protocol):
    """A network ready to run. A context manager; ``close`` may be called twice and frees everything."""

    #: The name in the table, for example ``onnxruntime``.
    name: str
    #: Number of classes, the width of the logits.
    classes: int

    def infer(self, images: Images) -> Logits:
        """Run (N, H, W, 3) uint8 RGB through the network.

        Returns logits (N, classes) float32 that belong to the caller: a later call does not change them.
        Raises ConfigError where the shape or dtype is not the network's, BackendError where the device fails.
        """
        ...

    def close(self) -> None:
        """Free the device's memory; harmless when repeated."""
        ...

    def __enter__(self) -> Backend: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...


@runtime_checkable
class PipelinedBackend(Backend, Protocol):
    """A backend with several batches under way at once, which preprocesses frames itself where ``resizes`` is true."""

    @property
    def most(self) -> int:
        """The largest batch that ``submit`` takes."""
        ...

    @property
    def resizes(self) -> bool:
        """Whether frames are better given to it than to ``preprocess_bgr``: it makes the same bytes of them."""
        ...

    def submit(self, images: Images) -> Any:
        """Start a batch, and return the ticket that ``result`` takes once. Waits while too many are under way."""
        ...

    def submit_frames(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """The same of frames as captured, which are the caller's again when this returns."""
        ...

    def result(self, ticket: Any) -> Logits:
        """Wait for a batch: logits (N, classes) float32, the caller's to keep."""
        ...

    def infer_frames(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Logits:
        """Run frames as captured, (H, W, 3) uint8 BGR of any sizes: logits (N, classes) float32, the caller's to keep."""
        ...


@dataclass(frozen=True)
class EngineRequest:
    """The engine that a backend needs on this machine: its folder's name in the artifact, the form to derive, and how TensorRT
    is to build it."""

    key: str
    form: str
    tuning: EngineTuning = field(default_factory=EngineTuning)


class BackendClass(Protocol):
    """What the class behind a line of the table offers before it is opened."""

    def engine_request(self, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:
        """The engine to be derived first, tuned like that; None where the artifact's graph is run as it is.

        Without ``tuning`` any engine that is there and fits will do. Raises ConfigError for a tuning that is not this backend's.
        """
        ...

    def open(self, artifact: Artifact, variant: Variant) -> Backend:
        """Open the artifact. Raises IncompatibleEngineError where the engine it needs is not in it."""
        ...


@dataclass(frozen=True)
class BackendEntry:
    """A line of the table: where the class is, the module it needs, and the command that installs that."""

    target: str
    module: str
    install: str


BACKENDS: Mapping[str, BackendEntry] = MappingProxyType(
    {
        "onnxruntime": BackendEntry(
            "edge_resnet.runtime.onnxruntime:OnnxRuntimeBackend", "onnxruntime", "pip install edge-resnet"
        ),
        "tensorrt": BackendEntry(
            "edge_resnet.runtime.tensorrt.inference:TensorRtBackend", "tensorrt", "pip install 'edge-resnet[tensorrt]'"
        ),
        "openvino": BackendEntry(
            "edge_resnet.runtime.openvino:OpenVinoBackend", "openvino", "pip install 'edge-resnet[openvino]'"
        ),
        "fake": BackendEntry("edge_resnet.runtime.fake:FakeBackend", "numpy", "pip install edge-resnet"),
    }
)

#: What ``auto`` tries, the fastest first.
AUTO = ("tensorrt", "openvino", "onnxruntime")
#: Goes into the key of every Q/DQ graph for the CPU: raise it when qdq.py writes another graph from the same truth.
_CPU_DERIVATION = 3


def open_backend(artifact: Artifact, name: str = "auto", variant: Variant = "native") -> Backend:
    """Open an artifact on the backend of that name.

    Raises ConfigError for an unknown name, MissingDependencyError where its library is not installed, and
    IncompatibleEngineError where the artifact must be compiled for this machine first.
    """
    return load_backend(resolve_backend(name, variant)).open(artifact, variant)


def resolve_backend(name: str, variant: Variant = "native") -> str:
    """The table's name behind ``auto``: the fastest backend that can run here; for the simulation the one that simulates."""
    if name != "auto":
        return name
    if variant == "simulated":
        return AUTO[-1]
    for candidate in AUTO:
        if _can_run(candidate):
            return candidate
    raise MissingDependencyError("no backend is installed", hint=BACKENDS[AUTO[-1]].install)


def load_backend(name: str) -> BackendClass:
    """Import the class behind a name of the table."""
    if name not in BACKENDS:
        raise ConfigError(f"no backend is named {name}", hint=f"choose one of {', '.join(['auto', *BACKENDS])}")
    module, attribute = BACKENDS[name].target.split(":")
    try:
        loaded: BackendClass = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise MissingDependencyError(f"backend {name} needs {error.name or 'a package'}", hint=BACKENDS[name].install) from error
    return loaded


def cpu_int8_request(artifact: Artifact, *, simulated: bool = False) -> EngineRequest:
    """The Q/DQ graph of an INT8 artifact for this kind of CPU, or TensorRT's to be simulated.

    ONNX Runtime and OpenVINO share it: what one derived, the other opens. The key is older than the second of them.
    """
    form = "tensorrt" if simulated else "u8s8" if has_int8_dot_product() else "u8s7"
    return EngineRequest(f"onnxruntime-{form}-v{_CPU_DERIVATION}-{artifact.source_digest()[:12]}", form)


def cpu_graph(artifact: Artifact, request: EngineRequest | None) -> Path:
    """The file that a CPU backend loads: the artifact's graph, or the derived one. Raises IncompatibleEngineError where there is
    none."""
    if request is None:
        return artifact.model_path
    folder = find_engine(artifact, request.key)
    if folder is None:
        raise IncompatibleEngineError(
            f"{artifact.folder} holds no {request.form} engine that fits this machine",
            hint=f"edge-resnet compile {artifact.folder}   (needs pip install 'edge-resnet[compile]')",
        )
    return folder / MODEL


def refuse_tuning(tuning: EngineTuning | None) -> None:
    """What a backend says to a tuning that it cannot follow. Raises ConfigError where there is one."""
    if tuning is not None:
        raise ConfigError("workspace, level and compatibility are TensorRT's", hint="add --backend tensorrt, or leave them out")


def _can_run(name: str) -> bool:
    """Whether its library is installed and it is worth choosing here.

    For TensorRT a GPU and PyCUDA must be there too. On x86 with VNNI OpenVINO took 0.77 and 0.86 of ONNX Runtime's time
    for ResNet-18 and 50 in INT8, and as long in FP32 (two cores of an AMD EPYC, benchmarks/backends.py). On other processors the
    two were not compared.
    """
    if importlib.util.find_spec(BACKENDS[name].module) is None:
        return False
    if name == "openvino":
        return platform.machine() == "x86_64" and has_int8_dot_product()
    if name != "tensorrt":
        return True
    try:
        first_gpu()
    except BackendError:
        return False
    return importlib.util.find_spec("pycuda") is not None


def check_images(images: Images, input_size: int, *, closed: bool) -> None:
    """What every backend asks of its input. Raises BackendError when closed, ConfigError for a wrong shape or dtype."""
    if closed:
        raise BackendError("this backend is closed", hint="open the artifact again")
    shape = (input_size, input_size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape or len(images) == 0:
        raise ConfigError(
            f"the network takes (N, {input_size}, {input_size}, 3) uint8, not {images.shape} {images.dtype}",
            hint="preprocess the images first",
        )
