"""The artifact on disk: opened with every hash checked, written whole or not at all. Knows nothing of graphs or backends."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edge_resnet.artifact.schema import SCHEMA_VERSION, CalibrationTable, FileEntry, Manifest
from edge_resnet.core.errors import ArtifactError, BuildError
from edge_resnet.core.files import sha256_of

__all__ = [
    "CALIBRATION",
    "CORRECTIONS",
    "LABELS",
    "MANIFEST",
    "MODEL",
    "TOOLS",
    "Artifact",
    "describe_files",
    "finish",
    "newest_artifact",
    "open_artifact",
    "staging",
    "stamped",
    "write_json",
]

MANIFEST = "manifest.json"
MODEL = "model.onnx"
CALIBRATION = "calibration.json"
CORRECTIONS = "corrections.npz"
LABELS = "labels.txt"
ENGINES = "engines"


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: ``folder``, its ``manifest`` and one label per class, in index order."""

    folder: Path
    manifest: Manifest
    labels: tuple[str, ...]

    @property
    def model_path(self) -> Path:
        """The FP32 graph: uint8 (N, H, W, 3) RGB in, float32 logits (N, classes) out."""
        return self.folder / MODEL

    def calibration(self) -> CalibrationTable:
        """Read the calibration table. Raises ArtifactError where there is none or it was made for another graph."""
        path = self.folder / CALIBRATION
        if not path.is_file():
            raise ArtifactError(f"{self.folder} has no {CALIBRATION}", hint="build it again with --int8")
        table: CalibrationTable = _parse(TypeAdapter(CalibrationTable), path)
        if table.model_digest != self.manifest.files[MODEL].sha256:
            raise ArtifactError(f"{path} was measured on another graph", hint="build the artifact again")
        return table

    def source_digest(self) -> str:
        """Sha256 over what every engine derives from: the graph and, where there are any, ranges and corrections."""
        names = sorted(name for name in self.manifest.files if name in (MODEL, CALIBRATION, CORRECTIONS))
        return hashlib.sha256("".join(self.manifest.files[name].sha256 for name in names).encode()).hexdigest()

    def engine_folder(self, key: str) -> Path:
        """Where the engine of that key is cached, whether or not it is there."""
        return self.folder / ENGINES / key


def open_artifact(folder: Path) -> Artifact:
    """Open an artifact and check its schema, that no path leaves it, and every size and sha256.

    Raises ArtifactError that names the first thing wrong. Engines are a cache and are checked where they are loaded.
    """
    path = folder / MANIFEST
    if not folder.exists():
        raise ArtifactError(f"no artifact at {folder}", hint="edge-resnet build makes one; -o names its folder")
    if not path.is_file():
        raise ArtifactError(f"{folder} is not an artifact: it has no {MANIFEST}", hint="name the folder that build wrote")
    _check_schema(path)
    manifest = _parse(TypeAdapter(Manifest), path)
    for name in (MODEL, LABELS, *([CALIBRATION] if manifest.precision == "int8" else [])):
        if name not in manifest.files:
            raise ArtifactError(f"{path} does not list {name}", hint="build the artifact again")
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry)
    labels = tuple((folder / LABELS).read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    if len(labels) != manifest.model.classes:
        raise ArtifactError(f"{folder / LABELS} has {len(labels)} lines for {manifest.model.classes} classes")
    return Artifact(folder, manifest, labels)


def newest_artifact(root: Path) -> Path:
    """The artifact under ``root`` whose manifest was written last. Raises ArtifactError where there is none."""
    manifests = [path for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
    if not manifests:
        raise ArtifactError(
            f"no artifact under {root}/", hint="edge-resnet build --depth 50 --int8 makes one; or name its folder"
        )
    return max(manifests, key=lambda path: path.stat().st_mtime_ns).parent


@contextmanager
def staging(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place if the block succeeds and vanishes if it does not.

    Nothing is left half-written: not on an exception, not on Ctrl-C. With ``force`` an artifact or engine that is there is
    replaced; anything else that is there is refused. Raises BuildError, also where the disk is full or read-only.
    """
    if target.exists() and not force:
        raise BuildError(f"{target} exists already", hint="choose another folder with -o, or replace it with --force")
    if target.exists() and not _is_ours(target):
        raise BuildError(f"{target} is not an artifact, so --force does not replace it", hint="choose another folder with -o")
    work = target.parent / f".{target.name}.{os.getpid()}.part"
    try:
        work.mkdir(parents=True)
        yield work
        if target.exists():
            old = work.with_suffix(".old")
            target.rename(old)
            work.rename(target)
            shutil.rmtree(old)
        else:
            work.rename(target)
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror or error}", hint=_remedy(error)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """The manifest's entries for every file that lies in ``folder`` now."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST)
    return {path.name: FileEntry(sha256_of(path), path.stat().st_size) for path in files}


def write_json(path: Path, record: Any) -> None:
    """Write a frozen record as indented JSON."""
    path.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def _is_ours(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or (folder / "meta.json").is_file()


def _remedy(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "free some space, or use another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "use a folder that you may write to: engines are kept in the artifact, and build takes -o"
    return "check the path"


def _check_schema(path: Path) -> None:
    """Refuse a newer schema before its unknown fields are complained about."""
    try:
        version = json.loads(path.read_text(encoding="utf-8"))["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a manifest", hint="build the artifact again") from error
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema {version}, this edge-resnet reads up to {SCHEMA_VERSION}", hint="pip install -U edge-resnet"
        )


def _parse(adapter: TypeAdapter[Any], path: Path) -> Any:
    try:
        return adapter.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path}: {where}: {first['msg']}", hint="build the artifact again") from error


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    pure = PurePosixPath(name)
    path = folder / name
    inside = not pure.is_absolute() and ".." not in pure.parts and path.resolve().is_relative_to(folder.resolve())
    if not inside:
        raise ArtifactError(f"{folder / MANIFEST} names a file outside the artifact: {name}", hint="do not use this artifact")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", hint="copy the artifact again, or build it again")
    if path.stat().st_size != entry.size or sha256_of(path) != entry.sha256:
        raise ArtifactError(f"{path} was changed after the build", hint="copy the artifact again, or build it again")


def finish(folder: Path, manifest: Manifest) -> None:
    """Write the manifest over what lies in ``folder`` now: the end of every artifact."""
    write_json(folder / MANIFEST, replace(manifest, files=describe_files(folder)))


#: Packages whose versions the manifest names.
TOOLS = ("edge-resnet", "numpy", "onnx", "onnxruntime", "pillow", "torch")


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with the time, and the versions of what it is made with, as they are now."""
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return replace(manifest, created=created, tools={name: version(name) for name in TOOLS})
