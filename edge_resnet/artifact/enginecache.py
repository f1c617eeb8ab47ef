"""The engines folder of an artifact: what was derived for some machine, with the hash of each file. Knows no engine format."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edge_resnet.artifact.folder import Artifact, describe_files, staging, write_json
from edge_resnet.artifact.schema import FileEntry
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import BatchProfile, Precision

__all__ = [
    "EngineFacts",
    "EngineMeta",
    "EngineOptions",
    "EngineTuning",
    "Typing",
    "engine_key",
    "find_engine",
    "read_options",
    "store_engine",
    "why_unfit",
]


#: Compute capability of Ampere, from which on hardware-compatible engines run.
_AMPERE = (8, 0)


@dataclass(frozen=True)
class EngineFacts:
    """``truth``: the digest of what the engine derives from. The rest as the builder had it."""

    tensorrt: str
    gpu: str
    compute_capability: str
    truth: str
    dialect: Typing
    options: EngineOptions


def engine_key(facts: EngineFacts) -> str:
    """The folder's name: readable where it can be, and different wherever any fact is."""
    digest = hashlib.sha256(json.dumps(asdict(facts), sort_keys=True).encode()).hexdigest()[:12]
    gpu = re.sub(r"[^a-z0-9]+", "-", facts.gpu.lower()).strip("-")[:32]
    return f"tensorrt-{facts.tensorrt}-sm{facts.compute_capability.replace('.', '')}-{gpu}-{facts.options.precision}-{digest}"


def why_unfit(found: EngineFacts, here: EngineFacts) -> str | None:
    """In words what keeps an engine from being used here; None where nothing does.

    How much memory and effort went into it does not, nor the dialect, which follows from TensorRT's version.
    """
    was, wanted = found.options, here.options
    machine = was.tuning.hardware_compatible and _from_ampere(found) and _from_ampere(here)
    differing = {
        "the artifact's graph or ranges": (found.truth[:12], here.truth[:12]),
        "the precision": (was.precision, wanted.precision),
        "the input's size": (was.input_size, wanted.input_size),
        "the batch": tuple(f"{batch.min},{batch.opt},{batch.max}" for batch in (was.batch, wanted.batch)),
        "TensorRT": (here.tensorrt if _is_later(found, here) else found.tensorrt, here.tensorrt),
        "the GPU": (here.gpu if machine else found.gpu, here.gpu),
        "the compute capability": (here.compute_capability if machine else found.compute_capability, here.compute_capability),
    }
    return ", ".join(f"{name} was {old}, is {new}" for name, (old, new) in differing.items() if old != new) or None


def _from_ampere(facts: EngineFacts) -> bool:
    return _numbers(facts.compute_capability) >= _AMPERE


def _is_later(found: EngineFacts, here: EngineFacts) -> bool:
    """Whether a version-compatible engine meets a TensorRT of the same major version that is at least as new as its builder."""
    old, new = _numbers(found.tensorrt), _numbers(here.tensorrt)
    return found.options.tuning.version_compatible and old[:1] == new[:1] and old <= new


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


@dataclass(frozen=True)
class EngineTuning:
    """What changes how an engine is built and where it runs, and not what it computes.

    ``workspace_mib``: memory that a layer may use while it runs, TensorRT's own default where None. ``level``: the builder's
    effort in 0..5, its own default where None. ``version_compatible``: runs on later TensorRT of the same major version too;
    ``hardware_compatible``: on every GPU from Ampere on, with fewer fusions (TensorRT's API reference,
    HardwareCompatibilityLevel).
    """

    workspace_mib: int | None = None
    level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ConfigError(f"the workspace must be 1 MiB or more, not {self.workspace_mib}", hint="512 suits a small board")
        if self.level is not None and not 0 <= self.level <= 5:
            raise ConfigError(f"the builder's level must lie in 0..5, not {self.level}", hint="3 is TensorRT's own")


@dataclass(frozen=True)
class EngineOptions:
    """``input_size``: pixels of height and width. ``batch``: the batches that the engine serves, fastest at ``opt``."""

    precision: Precision
    input_size: int
    batch: BatchProfile
    tuning: EngineTuning = field(default_factory=EngineTuning)


def read_options(words: Mapping[str, Any]) -> EngineOptions:
    """What ``asdict`` made of options. Raises KeyError or TypeError where it is nothing of the kind."""
    return EngineOptions(words["precision"], words["input_size"], BatchProfile(**words["batch"]), EngineTuning(**words["tuning"]))


META = "meta.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineMeta:
    """What an engine says of itself: its ``key``, ``form``, the digest of the truth it derives from, and its files."""

    key: str
    form: str
    truth: str
    files: dict[str, FileEntry]


def find_engine(artifact: Artifact, key: str) -> Path | None:
    """The folder of the engine with that key, whole and unchanged; None where there is none, with the reason in the log."""
    folder = artifact.engine_folder(key)
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        whole = meta["key"] == key and meta["truth"] == artifact.source_digest()
        whole = whole and all(sha256_of(folder / name) == entry["sha256"] for name, entry in meta["files"].items())
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("engine %s cannot be read (%s): it is derived anew", key, error)
        return None
    if not whole:
        _log.warning("engine %s was changed or made from another graph: it is derived anew", key)
        return None
    return folder


def store_engine(artifact: Artifact, key: str, form: str, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a new folder and put it in place whole. Raises BuildError where the disk does not take it."""
    folder = artifact.engine_folder(key)
    with staging(folder, force=True) as work:
        write(work)
        write_json(work / META, EngineMeta(key, form, artifact.source_digest(), describe_files(work)))
    return folder


#: ``weak``: precision by builder flags; ``strong``: by the types of the graph.
Typing: TypeAlias = Literal["weak", "strong"]
