"""The plans in an artifact: which one this machine needs, which it may use, and why not the others. Runs no plan.

The same for TensorRT and for TensorRT for RTX; a ``PlanLibrary`` knows what differs.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from edge_resnet.artifact.enginecache import (
    FACTS,
    PLAN,
    EngineFacts,
    EngineOptions,
    EngineTuning,
    engine_key,
    find_engine,
    why_unfit,
)
from edge_resnet.artifact.folder import Artifact, read_record
from edge_resnet.core.errors import ArtifactError, ConfigError, IncompatibleEngineError
from edge_resnet.core.files import cache_folder
from edge_resnet.core.records import Preprocess
from edge_resnet.device.gpu import Gpu, first_gpu
from edge_resnet.runtime.backend import Backend, EngineRequest, Variant
from edge_resnet.runtime.tensorrt.library import LIBRARIES, LibraryName
from edge_resnet.runtime.tensorrt.native import NativeLibrary

__all__ = ["Contexts", "PlanBackend", "PlanLibrary", "StoredPlan", "find_plan", "needed_here", "read_plan", "runtime_cache"]

_TENSORRT = NativeLibrary()
_log = logging.getLogger(__name__)


class Contexts(Protocol):
    """Makes the execution contexts of an engine. ``captures``: they capture CUDA graphs themselves."""

    captures: bool

    def create_execution_context(self) -> Any:
        """A new context; None if the library makes none. The CUDA context must be current."""
        ...

    def keep(self) -> None:
        """Store what the runs so far have compiled. The CUDA context must be current, and nothing may be running."""
        ...


class PlanLibrary(Protocol):
    """What differs between TensorRT and TensorRT for RTX. ``name``: of the module. ``backend``: its name in the table."""

    name: LibraryName
    backend: str

    def facts(self, source_digest: str, options: EngineOptions) -> EngineFacts:
        """The facts of the engine that is built here, of that source and with these options."""
        ...

    def needed_to_run(self, facts: EngineFacts) -> EngineFacts:
        """The facts that an engine must have to be run here instead of one with the given facts."""
        ...

    def caveat(self, facts: EngineFacts) -> str:
        """What should be known before this engine is built, in one sentence; empty if there is nothing."""
        ...

    def refuse_gpu(self, gpu: Gpu) -> None:
        """Raise BackendError for a GPU that the library is known not to run on."""
        ...

    def check(self, trt: ModuleType, runtime: Any, content: bytes) -> None:
        """Raise IncompatibleEngineError or BackendError for a plan that the runtime would refuse."""
        ...

    def contexts(self, trt: ModuleType, engine: Any, cache: Path, *, graphs: bool) -> Contexts:
        """What makes the engine's contexts. ``cache``: a file for what they compile. ``graphs``: capture CUDA graphs."""
        ...


@dataclass(frozen=True)
class StoredPlan:
    """``content``: the plan's bytes. ``classes``: of the network. ``preprocess``: how frames become the network's input.

    ``own_code``: whether the plan contains code that TensorRT must be allowed to run, as version-compatible plans do. ``key``: of
    the engine, for what is cached beside it.
    """

    content: bytes
    classes: int
    preprocess: Preprocess
    own_code: bool = False
    key: str = "plan"


class PlanBackend:
    """Opens artifacts with a library of plans; a ``BackendClass``."""

    def __init__(self, library: PlanLibrary) -> None:
        self.name = library.backend
        self._library = library

    def engine_request(self, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:
        """A plan for this machine and this version of the library; its form is its precision."""
        facts = needed_here(artifact, variant, self._library, tuning)
        found = find_plan(artifact, self._library.needed_to_run(facts)) if tuning is None else None
        key = engine_key(facts) if found is None else found[0].name
        return EngineRequest(key, facts.options.precision, facts, self._library.caveat(facts))

    def open(self, artifact: Artifact, variant: Variant) -> Backend:
        """Open the plan that fits this machine. Raises IncompatibleEngineError if none does; the reasons are in the log.

        Raises BackendError without a GPU that the library runs on.
        """
        return self._opened(artifact, variant, graphs=True)

    def open_without_graphs(self, artifact: Artifact, variant: Variant) -> Backend:
        """As ``open``: every kernel is launched by itself."""
        return self._opened(artifact, variant, graphs=False)

    def _opened(self, artifact: Artifact, variant: Variant, *, graphs: bool) -> Backend:
        from edge_resnet.runtime.tensorrt.inference import TensorRtBackend  # CUDA, which no build needs

        self._library.refuse_gpu(first_gpu())
        return TensorRtBackend(read_plan(artifact, variant, self._library), self._library, graphs=graphs)


def read_plan(artifact: Artifact, variant: Variant, library: PlanLibrary = _TENSORRT) -> StoredPlan:
    """The plan that fits this machine. Raises IncompatibleEngineError if none does; the reasons are in the log."""
    found = find_plan(artifact, library.needed_to_run(needed_here(artifact, variant, library)))
    if found is None:
        raise IncompatibleEngineError(
            f"{artifact.folder} holds no engine of {LIBRARIES[library.name].title} that fits this machine",
            hint=f"edge-resnet compile {artifact.folder} --backend {library.backend} (needs pip install 'edge-resnet[compile]')",
        )
    folder, facts = found
    manifest = artifact.manifest
    # Only a version-compatible plan may run code of its own: it was built on this machine, and its hash was checked.
    own_code = facts.options.tuning.version_compatible
    return StoredPlan((folder / PLAN).read_bytes(), manifest.model.classes, manifest.preprocess, own_code, folder.name)


def needed_here(artifact: Artifact, variant: Variant, library: PlanLibrary, tuning: EngineTuning | None = None) -> EngineFacts:
    """The facts of the engine that the artifact needs on this machine.

    Raises ConfigError for the simulation of TensorRT, and what the library's ``facts`` raises.
    """
    if variant == "simulated":
        raise ConfigError("TensorRT does not run the simulation of its own INT8", hint="the backend onnxruntime runs it")
    manifest = artifact.manifest
    precision = "fp32" if variant == "reference" else manifest.precision
    options = EngineOptions(precision, manifest.model.input_size, manifest.batch, tuning or EngineTuning())
    return library.facts(artifact.source_digest(), options)


def find_plan(artifact: Artifact, here: EngineFacts) -> tuple[Path, EngineFacts] | None:
    """The folder and facts of an engine that fits, whole and unchanged: the one that was written last if several fit.

    None if none fits; the reason for each of them is in the log.
    """
    records = sorted(artifact.folder.glob(f"engines/*/{FACTS}"), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
    refused: list[tuple[str, str]] = []
    for path in records:
        found = _read(path)
        if isinstance(found, EngineFacts) and _kind(found) != _kind(here):
            continue  # not refused: of another backend, or the reference that eval keeps beside the artifact's own
        reason = found if isinstance(found, str) else why_unfit(found, here)
        if reason is None and isinstance(found, EngineFacts):
            folder = find_engine(artifact, path.parent.name)
            if folder is not None:
                return folder, found
            reason = "its files were changed"
        refused.append((path.parent.name, reason or ""))
    for name, reason in refused:
        _log.warning("engine %s is not used: %s", name, reason)
    return None


def runtime_cache(key: str, gpu: Gpu) -> Path:
    """The file for what runs of that engine on that GPU compile, in the user's cache folder."""
    name = re.sub(r"[^a-z0-9.]+", "-", f"{key}-{gpu.name}-{gpu.compute_capability}".lower()).strip("-.")
    return cache_folder() / "runtime" / f"{name}.cache"


def _kind(facts: EngineFacts) -> tuple[str, str]:
    return facts.library, facts.options.precision


def _read(path: Path) -> EngineFacts | str:
    """The facts, or the reason why they cannot be read."""
    try:
        found = read_record(path, EngineFacts)
    except ArtifactError as error:
        return f"its record cannot be read ({error.message})"
    return found if engine_key(found) == path.parent.name else "its record belongs to another engine"
