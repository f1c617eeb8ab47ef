"""The artifact on disk: opened with every hash checked, written completely or not at all.

Does not know about graphs or backends.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from edge_resnet.artifact.schema import SCHEMA_VERSION, CalibrationTable, FileEntry, Manifest
from edge_resnet.core.errors import ArtifactError, BuildError, DataError
from edge_resnet.core.files import read_limited, sha256_of
from edge_resnet.core.staging import new_folder

__all__ = [
    "CALIBRATION",
    "CORRECTIONS",
    "LABELS",
    "MANIFEST",
    "MODEL",
    "Artifact",
    "describe_files",
    "newest_artifact",
    "open_artifact",
    "staging",
    "staging_engine",
    "write_json",
    "write_manifest",
]

MANIFEST = "manifest.json"
MODEL = "model.onnx"
CALIBRATION = "calibration.json"
CORRECTIONS = "corrections.npz"
LABELS = "labels.txt"
_ENGINES = "engines"
#: Packages whose versions the manifest names.
_TOOLS = ("edge-resnet", "numpy", "onnx", "onnxruntime", "pillow", "torch")

#: Larger than any list of class names.
_MAX_LABEL_BYTES = 16 * 2**20

T = TypeVar("T")


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: its ``folder``, its ``manifest`` and one label per class, in index order."""

    folder: Path
    manifest: Manifest
    labels: tuple[str, ...]

    @property
    def model_path(self) -> Path:
        """The FP32 graph: uint8 (N, H, W, 3) RGB in, float32 logits (N, classes) out."""
        return self.folder / MODEL

    def calibration(self) -> CalibrationTable:
        """Read the calibration table. Raises ArtifactError if there is none or it was measured on another graph."""
        path = self.folder / CALIBRATION
        if not path.is_file():
            raise ArtifactError(
                f"{self.folder} has no {CALIBRATION}", hint="edge-resnet build --int8 makes an artifact with ranges"
            )
        table = _read(path, CalibrationTable)
        if table.model_digest != self.manifest.files[MODEL].sha256:
            raise ArtifactError(f"{path} was measured on another graph", hint="build the artifact again")
        return table

    def source_digest(self) -> str:
        """Sha256 over what every engine derives from: the graph and, if present, the ranges and corrections."""
        names = sorted(name for name in self.manifest.files if name in (MODEL, CALIBRATION, CORRECTIONS))
        return hashlib.sha256("".join(self.manifest.files[name].sha256 for name in names).encode()).hexdigest()

    def engine_folder(self, key: str) -> Path:
        """The folder in which the engine of that key is cached; it may not exist."""
        return self.folder / _ENGINES / key


def open_artifact(folder: Path) -> Artifact:
    """Open an artifact and check its schema, every size and sha256, and that no path leaves the folder.

    Raises ArtifactError that names the first fault. Engines are a cache and are checked when they are loaded.
    """
    path = folder / MANIFEST
    if not folder.exists():
        raise ArtifactError(f"no artifact at {folder}", hint="create one with edge-resnet build; -o names its folder")
    if not path.is_file():
        raise ArtifactError(f"{folder} is not an artifact: it has no {MANIFEST}", hint="name the folder that build wrote")
    _check_schema(path)
    manifest = _read(path, Manifest)
    for name in (MODEL, LABELS, *([CALIBRATION] if manifest.precision == "int8" else [])):
        if name not in manifest.files:
            raise ArtifactError(f"{path} does not list {name}", hint="build the artifact again")
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry)
    labels = _read_labels(folder / LABELS)
    if len(labels) != manifest.model.classes:
        message = f"{folder / LABELS} has {len(labels)} lines for {manifest.model.classes} classes"
        raise ArtifactError(message, hint="build the artifact again")
    return Artifact(folder, manifest, labels)


def _read_labels(path: Path) -> tuple[str, ...]:
    """The lines of ``labels.txt``. Raises ArtifactError unless it is UTF-8 text of at most 16 MiB."""
    try:
        return tuple(read_limited(path, _MAX_LABEL_BYTES).decode("utf-8").removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not UTF-8 text: {error.reason}", hint="build the artifact again") from error
    except DataError as error:
        raise ArtifactError(error.message, hint="build the artifact again") from error


def newest_artifact(root: Path) -> Path:
    """The artifact under ``root`` whose manifest was written last. Raises ArtifactError if there is none."""
    manifests = [path for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
    if not manifests:
        hint = "create one with edge-resnet build --depth 50 --int8, or name a folder"
        raise ArtifactError(f"no artifact under {root}/", hint=hint)
    return max(manifests, key=lambda path: path.stat().st_mtime_ns).parent


@contextmanager
def staging(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` if the block succeeds and is removed if it fails.

    Nothing is left half-written, not even on Ctrl-C. With ``force`` an existing artifact is replaced; anything else that exists
    is refused, before the block and again at its end. Raises BuildError, also if the disk is full or read-only.
    """
    target = target if target.name not in ("", "..") else target.resolve()
    with _writing(target, force=force):
        if os.path.lexists(target) and not force:
            raise BuildError(f"{target} exists already", hint="choose another folder with -o, or replace it with --force")
        if os.path.lexists(target) and not _is_artifact(target):
            raise BuildError(f"{target} is not an artifact, so --force does not replace it", hint="choose another folder with -o")
        with new_folder(target, replaces=_is_artifact if force else None) as work:
            yield work


@contextmanager
def staging_engine(target: Path) -> Iterator[Path]:
    """As ``staging``, for an engine's folder, which replaces whatever has its name: the cache belongs to this program.

    A cache that is a link is refused: it would be written to elsewhere.
    """
    if target.parent.is_symlink():
        raise BuildError(f"{target.parent} is a link, and engines are not written through it", hint=f"rm {target.parent}")
    with _writing(target, force=True), new_folder(target, replaces=lambda _: True) as work:
        yield work


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest over the files in ``folder``, with the time and the versions of the tools: an artifact's last step."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    tools = {name: version(name) for name in _TOOLS}
    write_json(folder / MANIFEST, replace(manifest, created=now, tools=tools, files=describe_files(folder)))


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """The manifest's entries for all files in ``folder``, the manifest itself excluded."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST)
    return {path.name: FileEntry(sha256_of(path), path.stat().st_size) for path in files}


def write_json(path: Path, record: Any) -> None:
    """Write a frozen record as indented JSON."""
    path.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


@contextmanager
def _writing(target: Path, *, force: bool) -> Iterator[None]:
    """Turn what the disk answers into BuildError."""
    try:
        yield
    except FileExistsError as error:
        if error.filename != str(target):
            raise BuildError(f"cannot write {target}: {error.strerror}", hint=_remedy(error)) from error
        hint = "choose another folder with -o" if force else "choose another folder with -o, or replace it with --force"
        raise BuildError(f"{target} appeared while it was being made, and is kept", hint=hint) from error
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror or error}", hint=_remedy(error)) from error


def _is_artifact(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _remedy(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "free some space, or use another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "use a folder that you may write to: engines are kept in the artifact, and build takes -o"
    return "check the path"


def _check_schema(path: Path) -> None:
    """Refuse a newer schema before its unknown fields are reported."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a manifest", hint="build the artifact again") from error
    if not isinstance(found, int) or found > SCHEMA_VERSION:
        message = f"{path} has schema {found}, this edge-resnet reads up to {SCHEMA_VERSION}"
        raise ArtifactError(message, hint="pip install -U edge-resnet")


def _read(path: Path, record: type[T]) -> T:
    try:
        return TypeAdapter(record).validate_json(path.read_bytes())
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
