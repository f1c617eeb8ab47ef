"""The TensorRT plans in an artifact: which one this machine needs, which it may use, and why not the others. Runs no plan."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import tensorrt

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
from edge_resnet.core.records import Preprocess
from edge_resnet.device.gpu import first_gpu
from edge_resnet.runtime.backend import Variant
from edge_resnet.runtime.tensorrt.library import typing_of

__all__ = ["StoredPlan", "facts_here", "find_plan", "needed_here", "read_plan"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredPlan:
    """``content``: the plan's bytes. ``classes``: of the network. ``preprocess``: how frames become the network's input.

    ``own_code``: whether the plan contains code that TensorRT must be allowed to run, as version-compatible plans do.
    """

    content: bytes
    classes: int
    preprocess: Preprocess
    own_code: bool = False


def read_plan(artifact: Artifact, variant: Variant) -> StoredPlan:
    """The plan that fits this machine. Raises IncompatibleEngineError if none does; the reasons are in the log."""
    found = find_plan(artifact, needed_here(artifact, variant))
    if found is None:
        raise IncompatibleEngineError(
            f"{artifact.folder} holds no TensorRT engine that fits this machine",
            hint=f"edge-resnet compile {artifact.folder} --backend tensorrt   (needs pip install 'edge-resnet[compile]')",
        )
    folder, facts = found
    manifest = artifact.manifest
    # Only a version-compatible plan may run code of its own: it was built on this machine, and its hash was checked.
    own_code = facts.options.tuning.version_compatible
    return StoredPlan((folder / PLAN).read_bytes(), manifest.model.classes, manifest.preprocess, own_code)


def needed_here(artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineFacts:
    """The facts of the engine that the artifact needs on this machine. Raises ConfigError for the simulation of TensorRT."""
    if variant == "simulated":
        raise ConfigError("TensorRT does not run the simulation of its own INT8", hint="the backend onnxruntime runs it")
    manifest = artifact.manifest
    precision = "fp32" if variant == "reference" else manifest.precision
    options = EngineOptions(precision, manifest.model.input_size, manifest.batch, tuning or EngineTuning())
    return facts_here(artifact.source_digest(), options)


def facts_here(source_digest: str, options: EngineOptions) -> EngineFacts:
    """The facts of an engine of that source with these options, built on this machine.

    Raises BackendError if there is no GPU, or if TensorRT is too old.
    """
    gpu, typing = first_gpu(), typing_of(tensorrt)
    return EngineFacts(str(tensorrt.__version__), gpu.name, gpu.compute_capability, source_digest, typing, options)


def find_plan(artifact: Artifact, here: EngineFacts) -> tuple[Path, EngineFacts] | None:
    """The folder and facts of an engine that fits, whole and unchanged: the one that was written last if several fit.

    None if none fits; the reason for each of them is in the log.
    """
    records = sorted(artifact.folder.glob(f"engines/*/{FACTS}"), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
    refused: list[tuple[str, str]] = []
    for path in records:
        found = _read(path)
        if isinstance(found, EngineFacts) and found.options.precision != here.options.precision:
            continue  # not refused: eval keeps an engine of the reference beside the artifact's own
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


def _read(path: Path) -> EngineFacts | str:
    """The facts, or the reason why they cannot be read."""
    try:
        found = read_record(path, EngineFacts)
    except ArtifactError as error:
        return f"its record cannot be read ({error.message})"
    return found if engine_key(found) == path.parent.name else "its record belongs to another engine"
