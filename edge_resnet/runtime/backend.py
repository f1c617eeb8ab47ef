"""What runs a network: the backend protocol, what a backend declares about itself, the table of backends, and opening one.

A new backend is one file in this folder, with its declaration in the constant ``BACKEND``, and one line in ``BACKENDS``; the
conformance suite iterates the table. An inference library is imported when its backend is loaded and not before: reading the
declarations is cheap, and a device needs only the library that it uses. Does not know any inference library itself.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.enginecache import EngineFacts, EngineTuning, find_engine
from edge_resnet.artifact.folder import MODEL, Artifact
from edge_resnet.artifact.graphcheck import check_graph
from edge_resnet.core.errors import (
    BackendError,
    ConfigError,
    IncompatibleEngineError,
    MissingDependencyError,
    is_out_of_memory,
)
from edge_resnet.device.machine import has_int8_dot_product

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendClass",
    "BackendInfo",
    "BackendTable",
    "EngineForm",
    "EngineRequest",
    "FormKind",
    "Images",
    "Logits",
    "PipelinedBackend",
    "Requirement",
    "Variant",
    "auto_order",
    "backend_info",
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
#: symmetric int8 simulated on a CPU; ``reference``, the FP32 graph.
Variant: TypeAlias = Literal["native", "simulated", "reference"]
#: What a backend runs: the artifact's graph as it is, a graph with Q/DQ pairs where the artifact is INT8, or a TensorRT plan.
FormKind: TypeAlias = Literal["graph", "qdq", "plan"]
#: Name of a backend → the module whose constant ``BACKEND`` declares it.
BackendTable: TypeAlias = Mapping[str, str]

BACKENDS: BackendTable = MappingProxyType(
    {
        "onnxruntime": "edge_resnet.runtime.onnxruntime",
        "tensorrt": "edge_resnet.runtime.tensorrt",
        "tensorrt-rtx": "edge_resnet.runtime.tensorrt_rtx",
        "openvino": "edge_resnet.runtime.openvino",
        "fake": "edge_resnet.runtime.fake",
    }
)


class Backend(Protocol):
    """A network ready to run. A context manager; ``close`` may be called twice and frees everything."""

    #: The name in the table, for example ``onnxruntime``.
    name: str
    #: Number of classes, the width of the logits.
    classes: int

    def infer(self, images: Images) -> Logits:
        """Run (N, H, W, 3) uint8 RGB through the network.

        Returns logits (N, classes) float32 that belong to the caller: a later call does not change them.
        Raises ConfigError if the network does not take that shape or dtype, BackendError if the device fails.
        """
        ...

    def close(self) -> None:
        """Free the device's memory; may be called again."""
        ...

    def __enter__(self) -> Backend: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...


@runtime_checkable
class PipelinedBackend(Backend, Protocol):
    """A backend that runs several batches at once, and that preprocesses frames itself if ``resizes`` is true."""

    @property
    def max_batch(self) -> int:
        """The largest batch that ``submit`` takes."""
        ...

    @property
    def resizes(self) -> bool:
        """Whether it preprocesses frames faster than ``preprocess_bgr``; the bytes are the same."""
        ...

    def submit(self, images: Images) -> Any:
        """Start a batch, and return the ticket that ``result`` takes once. Waits while too many batches are running."""
        ...

    def submit_frames(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """Start a batch of frames as captured; the caller may reuse them when this returns."""
        ...

    def result(self, ticket: Any) -> Logits:
        """Wait for a batch: logits (N, classes) float32, which belong to the caller."""
        ...

    def infer_frames(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Logits:
        """Run frames as captured, (H, W, 3) uint8 BGR of any sizes: logits (N, classes) float32, which belong to the caller."""
        ...


@dataclass(frozen=True)
class EngineRequest:
    """The engine that a backend needs on this machine.

    ``key``: its folder's name in the artifact. ``form``: what is derived, for example ``u8s8``. ``facts``: of a plan, with its
    library and options. ``caveat``: what should be known before it is derived, in one sentence.
    """

    key: str
    form: str
    facts: EngineFacts | None = None
    caveat: str = ""


class BackendClass(Protocol):
    """What a backend's class offers before an artifact is opened."""

    def engine_request(self, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:
        """The engine that must be derived first; None if the artifact's graph is run as it is.

        Without ``tuning``, any engine in the artifact that fits is accepted. Raises ConfigError for a tuning that the backend
        does not have.
        """
        ...

    def open(self, artifact: Artifact, variant: Variant) -> Backend:
        """Open the artifact. Raises IncompatibleEngineError if it does not hold the engine that this needs."""
        ...


@dataclass(frozen=True)
class Requirement:
    """A package that a backend needs. ``module``: its import name. ``package``: its name on the package index. ``extra``: the
    extra of edge-resnet that installs it, empty for a base dependency. ``alternatives``: others that serve in its place."""

    module: str
    package: str
    extra: str = ""
    alternatives: tuple[Requirement, ...] = ()

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        return f"pip install 'edge-resnet[{self.extra}]'" if self.extra else "pip install edge-resnet"

    @property
    def packages(self) -> frozenset[str]:
        """The names of the packages of which one is enough."""
        return frozenset((self.package, *(other.package for other in self.alternatives)))

    def is_installed(self) -> bool:
        """Whether the module or an alternative can be found; none is imported."""
        with suppress(ModuleNotFoundError):  # the package that a dotted name lies in
            if importlib.util.find_spec(self.module) is not None:
                return True
        return any(other.is_installed() for other in self.alternatives)


@dataclass(frozen=True)
class EngineForm:
    """The kind of form that a backend runs.

    Backends with an equal form share engines: ``family`` and ``version`` are part of the engine's key. Raise ``version`` when
    the compiler derives another graph from the same source. A plan's key holds TensorRT's version and needs neither.
    """

    kind: FormKind
    family: str = ""
    version: int = 0


def _everywhere() -> bool:
    return True


def _any_machine() -> None:
    return


@dataclass(frozen=True)
class BackendInfo:
    """What a backend declares, readable without its library.

    ``load``: imports the library and returns the class; raises ImportError if that fails.
    ``auto_rank``: the backend's place among those that ``auto`` tries, lowest first; None if ``auto`` never chooses it.
    ``suits``: whether ``auto`` should choose it on this machine, given that its packages are installed.
    ``refuse_machine``: raises BackendError where it cannot run engines. ``ahead``: it derives them there all the same.
    ``simulates``: it runs the simulation of TensorRT's INT8. ``fp16_as_fp32``: it computes an FP16 artifact in FP32.
    """

    load: Callable[[], BackendClass]
    requirements: tuple[Requirement, ...]
    form: EngineForm
    processor: Literal["CPU", "GPU"] = "CPU"
    auto_rank: int | None = None
    suits: Callable[[], bool] = _everywhere
    refuse_machine: Callable[[], None] = _any_machine
    ahead: bool = False
    simulates: bool = False
    fp16_as_fp32: bool = False


def open_backend(
    artifact: Artifact, name: str = "auto", variant: Variant = "native", *, table: BackendTable = BACKENDS
) -> Backend:
    """Open an artifact on the backend of that name.

    Raises ConfigError for an unknown name, MissingDependencyError if its library is not installed, and IncompatibleEngineError
    if the artifact must be compiled for this machine first.
    """
    return load_backend(resolve_backend(name, variant, table), table).open(artifact, variant)


def resolve_backend(name: str, variant: Variant = "native", table: BackendTable = BACKENDS) -> str:
    """The name that ``auto`` stands for: the fastest backend that can run here, or the one that simulates; other names as given.

    Raises MissingDependencyError if no backend that ``auto`` may choose is installed.
    """
    if name != "auto":
        return name
    order = auto_order(table)
    for candidate in order:
        info = backend_info(candidate, table)
        if variant == "simulated":
            if info.simulates:
                return candidate
        elif all(requirement.is_installed() for requirement in info.requirements) and info.suits():
            return candidate
    hint = backend_info(order[-1], table).requirements[0].remedy if order else ""
    raise MissingDependencyError("no backend is installed", hint=hint)


def auto_order(table: BackendTable = BACKENDS) -> list[str]:
    """The names that ``auto`` tries, in that order."""
    ranks = {name: rank for name in table if (rank := backend_info(name, table).auto_rank) is not None}
    return sorted(ranks, key=ranks.__getitem__)


def load_backend(name: str, table: BackendTable = BACKENDS) -> BackendClass:
    """The class of a backend; imports its library. Raises ConfigError for an unknown name, MissingDependencyError if the import
    fails."""
    info = backend_info(name, table)
    try:
        return info.load()
    except MissingDependencyError:
        raise
    except ImportError as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        packages = {requirement.module: requirement.package for requirement in info.requirements}
        missing = packages.get(error.name or "", error.name or "a package")
        raise MissingDependencyError(f"backend {name} needs {missing}", hint=info.requirements[0].remedy) from error


def backend_info(name: str, table: BackendTable = BACKENDS) -> BackendInfo:
    """What the backend of that name declares. Imports its file, and not its library. Raises ConfigError for an unknown name."""
    if name not in table:
        raise ConfigError(f"no backend is named {name}", hint=f"choose one of {', '.join(['auto', *table])}")
    info: BackendInfo = importlib.import_module(table[name]).BACKEND
    return info


def cpu_int8_request(artifact: Artifact, form: EngineForm, *, simulated: bool = False) -> EngineRequest:
    """The Q/DQ graph of an INT8 artifact for this kind of CPU, or TensorRT's Q/DQ graph for the simulation."""
    graph = "tensorrt" if simulated else "u8s8" if has_int8_dot_product() else "u8s7"
    return EngineRequest(f"{form.family}-{graph}-v{form.version}-{artifact.source_digest()[:12]}", graph)


def cpu_graph(artifact: Artifact, request: EngineRequest | None) -> Path:
    """The file that a CPU backend loads: the artifact's graph, or the derived one.

    Raises IncompatibleEngineError if the artifact does not hold it, ArtifactError if it is no network of edge-resnet.
    """
    if request is None:
        return artifact.model_path
    folder = find_engine(artifact, request.key)
    if folder is None:
        raise IncompatibleEngineError(
            f"{artifact.folder} holds no {request.form} engine that fits this machine",
            hint=f"edge-resnet compile {artifact.folder}   (needs pip install 'edge-resnet[compile]')",
        )
    check_graph(folder / MODEL)
    return folder / MODEL


def refuse_tuning(tuning: EngineTuning | None) -> None:
    """Raise ConfigError if there is a tuning: for every backend whose form is not a plan."""
    if tuning is not None:
        raise ConfigError(
            "workspace, level, compatibility and target are options of TensorRT",
            hint="choose the backend tensorrt or tensorrt-rtx, or leave them out",
        )


def check_images(images: Images, input_size: int, *, closed: bool) -> None:
    """Check the input of any backend. Raises BackendError if the backend is closed, ConfigError for a wrong shape or dtype."""
    if closed:
        raise BackendError("this backend is closed", hint="open the artifact again")
    shape = (input_size, input_size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape or len(images) == 0:
        raise ConfigError(
            f"the network takes (N, {input_size}, {input_size}, 3) uint8, not {images.shape} {images.dtype}",
            hint="preprocess the images first",
        )
