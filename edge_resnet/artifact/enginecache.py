"""The engines folder of an artifact: how engines are keyed, which one fits a machine, and storing one with a hash of each file.

Does not read any engine format.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from edge_resnet.artifact.folder import Artifact, describe_files, read_record, staging_engine, write_json
from edge_resnet.artifact.schema import FileEntry
from edge_resnet.core.errors import ArtifactError, ConfigError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import BatchProfile, Precision, Typing
from edge_resnet.core.staging import sweep

__all__ = [
    "FACTS",
    "LAYERS",
    "PLAN",
    "PROFILE",
    "EngineFacts",
    "EngineMeta",
    "EngineOptions",
    "EngineTuning",
    "engine_key",
    "find_engine",
    "read_options",
    "store_engine",
    "why_unfit",
]

#: Files of the folder of a TensorRT engine: the plan, its EngineFacts, the engine inspector's listing of layers, and the times of
#: those layers, which trtexec writes.
PLAN, FACTS, LAYERS, PROFILE = "plan.engine", "engine.json", "layers.json", "profile.json"
#: File of every engine's folder: its EngineMeta.
_META = "meta.json"
#: Compute capability of Ampere, the first GPUs that run hardware-compatible engines.
_AMPERE = (8, 0)
#: More than any GPU has; TensorRT takes the number of bytes in 64 bits.
_MAX_WORKSPACE_MIB = 1 << 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineTuning:
    """What changes how an engine is built and where it runs, and not what it computes.

    ``workspace_mib``: memory that a layer may use while it runs, None for TensorRT's default. ``level``: the builder's
    optimization level in 0..5, None for TensorRT's default. ``version_compatible``: it also runs on later TensorRT of the same
    major version. ``hardware_compatible``: it runs on every GPU from Ampere on, with fewer fusions (TensorRT's API reference,
    HardwareCompatibilityLevel). ``targets``: with TensorRT for RTX, the compute capabilities that it is compiled for, such as
    ``8.6``; empty for those that suit this machine.
    """

    workspace_mib: int | None = None
    level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and not 1 <= self.workspace_mib <= _MAX_WORKSPACE_MIB:
            raise ConfigError(
                f"the workspace must lie in 1..{_MAX_WORKSPACE_MIB} MiB, not {self.workspace_mib}", hint="512 suits a small board"
            )
        if self.level is not None and not 0 <= self.level <= 5:
            raise ConfigError(f"the builder's level must lie in 0..5, not {self.level}", hint="3 is TensorRT's default")


@dataclass(frozen=True)
class EngineOptions:
    """``input_size``: pixels of height and width. ``batch``: the batches that the engine serves, fastest at ``opt``."""

    precision: Precision
    input_size: int
    batch: BatchProfile
    tuning: EngineTuning = field(default_factory=EngineTuning)


@dataclass(frozen=True)
class EngineFacts:
    """The source, the library and the machine that an engine is valid for.

    ``tensorrt``: the version of ``library``. ``gpu`` and ``compute_capability``: where TensorRT built it; empty with TensorRT for
    RTX, which compiles for the targets of the options. ``truth``: the artifact's ``source_digest``. ``dialect``: how the network
    is typed.
    """

    # The names of the fields are JSON keys in engine.json and part of every engine's key: they stay as they are.
    tensorrt: str
    gpu: str
    compute_capability: str
    truth: str
    dialect: Typing
    options: EngineOptions
    library: Literal["tensorrt", "tensorrt_rtx"] = "tensorrt"


@dataclass(frozen=True)
class EngineMeta:
    """The record beside an engine: its ``key``, its ``form``, the artifact's ``source_digest`` in ``truth``, and its files."""

    # The names of the fields are JSON keys in meta.json.
    key: str
    form: str
    truth: str
    files: dict[str, FileEntry]


def engine_key(facts: EngineFacts) -> str:
    """The folder's name of an engine: readable, and different if any fact differs."""
    digest = hashlib.sha256(json.dumps(asdict(facts), sort_keys=True).encode()).hexdigest()[:12]
    name = facts.library.replace("_", "-")
    capabilities = "-".join(_numbered(capability) for capability in facts.options.tuning.targets or (facts.compute_capability,))
    gpu = re.sub(r"[^a-z0-9]+", "-", facts.gpu.lower()).strip("-")[:32]
    parts = (name, facts.tensorrt, f"sm{capabilities}", gpu, facts.options.precision, digest)
    return "-".join(part for part in parts if part)


def why_unfit(found: EngineFacts, here: EngineFacts) -> str | None:
    """Why an engine of the same library cannot be used here, for the log; None if it can.

    Workspace and level do not matter, nor does the typing, which follows from the library's version. An engine that was compiled
    for targets fits if all targets of ``here`` are among them.
    """
    was, wanted = found.options, here.options
    machine = was.tuning.hardware_compatible and _from_ampere(found) and _from_ampere(here)
    covered = set(wanted.tuning.targets) <= set(was.tuning.targets)
    targets = tuple(", ".join(tuning.targets) for tuning in (wanted.tuning if covered else was.tuning, wanted.tuning))
    differing = {
        "the artifact's graph or ranges": (found.truth[:12], here.truth[:12]),
        "the precision": (was.precision, wanted.precision),
        "the input's size": (was.input_size, wanted.input_size),
        "the batch": tuple(f"{batch.min},{batch.opt},{batch.max}" for batch in (was.batch, wanted.batch)),
        "TensorRT": (here.tensorrt if _is_later(found, here) else found.tensorrt, here.tensorrt),
        "the GPU": (here.gpu if machine else found.gpu, here.gpu),
        "the compute capability": (here.compute_capability if machine else found.compute_capability, here.compute_capability),
        "the target": targets,
    }
    return ", ".join(f"{name} was {old}, is {new}" for name, (old, new) in differing.items() if old != new) or None


def read_options(record: Mapping[str, Any]) -> EngineOptions:
    """The options that ``asdict`` turned into ``record``. Raises KeyError or TypeError for any other record."""
    tuning = EngineTuning(**{**record["tuning"], "targets": tuple(record["tuning"].get("targets", ()))})
    return EngineOptions(record["precision"], record["input_size"], BatchProfile(**record["batch"]), tuning)


def find_engine(artifact: Artifact, key: str) -> Path | None:
    """The folder of the engine with that key, whole and unchanged; None if there is none.

    The reason is in the log if something is there. Nothing but regular files is opened, and none before its size is known to be
    right.
    """
    folder = artifact.engine_folder(key)
    if not folder.parent.is_symlink():
        sweep(folder.parent)
    if not os.path.lexists(folder):
        return None
    try:
        reason = _why_refused(folder, key, artifact.source_digest())
    except ArtifactError as error:
        reason = error.message
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
    if reason is None:
        return folder
    _log.warning("engine %s is not used and will be derived again: %s", key, reason)
    return None


def _why_refused(folder: Path, key: str, source_digest: str) -> str | None:
    """Why an engine's folder is not used, None if it may be. Raises ArtifactError and OSError for what cannot be read."""
    for path in (folder.parent, folder):
        if not stat.S_ISDIR(path.lstat().st_mode):
            return f"{path.name} is not a folder"
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    irregular = sorted(name for name, status in found.items() if not stat.S_ISREG(status.st_mode))
    if irregular:
        return f"{irregular[0]!a} is not a regular file"
    if found.pop(_META, None) is None:
        return f"it has no {_META}"
    meta = read_record(folder / _META, EngineMeta)
    if meta.key != key or meta.truth != source_digest:
        return "it is that of another graph or another machine"
    if PROFILE not in meta.files:
        found.pop(PROFILE, None)  # trtexec adds it
    if not meta.files or found.keys() != meta.files.keys():
        return f"its files are not those that {_META} lists"
    resized = (name for name, entry in meta.files.items() if found[name].st_size != entry.size)
    rewritten = (name for name, entry in meta.files.items() if sha256_of(folder / name) != entry.sha256)
    name = next(chain(resized, rewritten), None)
    return None if name is None else f"{name} was changed"


def store_engine(artifact: Artifact, key: str, form: str, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a new folder, and put it in place whole. Raises BuildError if the disk is full or read-only."""
    folder = artifact.engine_folder(key)
    with staging_engine(folder) as work:
        write(work)
        write_json(work / _META, EngineMeta(key, form, artifact.source_digest(), describe_files(work)))
    return folder


def _from_ampere(facts: EngineFacts) -> bool:
    return _numbers(facts.compute_capability) >= _AMPERE


def _is_later(found: EngineFacts, here: EngineFacts) -> bool:
    """Whether the engine is version-compatible, and TensorRT here has the same major version and is at least as new."""
    old, new = _numbers(found.tensorrt), _numbers(here.tensorrt)
    return found.options.tuning.version_compatible and old[:1] == new[:1] and old <= new


def _numbered(capability: str) -> str:
    return capability.replace(".", "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
