"""The TensorRT plans in an artifact: which one this machine needs, which it may use, and why not the others. Runs none."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import tensorrt

from edge_resnet.artifact.enginecache import (
    EngineFacts,
    EngineOptions,
    EngineTuning,
    engine_key,
    find_engine,
    read_options,
    why_unfit,
)
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError, IncompatibleEngineError
from edge_resnet.core.records import Preprocess
from edge_resnet.device.gpu import first_gpu
from edge_resnet.runtime.backend import Variant
from edge_resnet.runtime.tensorrt.library import typing_of

__all__ = ["FACTS", "LAYERS", "PLAN", "StoredPlan", "facts_here", "find_plan", "read_plan", "wanted"]


def facts_here(truth: str, options: EngineOptions) -> EngineFacts:
    """What an engine of ``truth`` with these options would hold for. Raises BackendError where there is no GPU, or a TensorRT
    that is too old."""
    gpu, dialect = first_gpu(), typing_of(tensorrt)
    return EngineFacts(str(tensorrt.__version__), gpu.name, gpu.compute_capability, truth, dialect, options)


#: Files of an engine's folder: the serialized engine, what it holds for, the inspector's listing.
PLAN, FACTS, LAYERS = "plan.engine", "engine.json", "layers.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredPlan:
    """``content``: the serialized engine, of a network with that many ``classes`` whose input ``preprocess`` makes of frames.

    ``own_code``: whether it brings code that TensorRT must be allowed to run, as version-compatible plans do.
    """

    content: bytes
    classes: int
    preprocess: Preprocess
    own_code: bool = False


def read_plan(artifact: Artifact, variant: Variant) -> StoredPlan:
    """The plan that fits this machine. Raises IncompatibleEngineError where none does; why they do not is in the log."""
    found = find_plan(artifact, wanted(artifact, variant))
    if found is None:
        raise IncompatibleEngineError(
            f"{artifact.folder} holds no TensorRT engine that fits this machine",
            hint=f"edge-resnet compile {artifact.folder} --backend tensorrt   (needs pip install 'edge-resnet[compile]')",
        )
    folder, facts = found
    manifest = artifact.manifest
    # Code is run of a version-compatible plan alone: it was built here, and its hash was checked.
    own_code = facts.options.tuning.version_compatible
    return StoredPlan((folder / PLAN).read_bytes(), manifest.model.classes, manifest.preprocess, own_code)


def wanted(artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineFacts:
    """The engine that the artifact needs here. Raises ConfigError for the simulation, which is of this very backend."""
    if variant == "simulated":
        raise ConfigError("TensorRT's INT8 is simulated where there is none", hint="add --backend onnxruntime")
    manifest = artifact.manifest
    precision = "fp32" if variant == "reference" else manifest.precision
    options = EngineOptions(precision, manifest.model.input_size, manifest.batch, tuning or EngineTuning())
    return facts_here(artifact.source_digest(), options)


def find_plan(artifact: Artifact, here: EngineFacts) -> tuple[Path, EngineFacts] | None:
    """The folder and facts of an engine that fits, whole and unchanged: the one that was wanted last where several do.

    None where none does; what keeps each of them from being used is in the log.
    """
    records = sorted(artifact.folder.glob(f"engines/*/{FACTS}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
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
    """The facts, or in words why there are none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = EngineFacts(**{**record, "options": read_options(record["options"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its record cannot be read ({error})"
    return found if engine_key(found) == path.parent.name else "its record is another engine's"
