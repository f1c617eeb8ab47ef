"""The artifact on disk: opened with every hash checked, written completely or not at all.

Does not know about graphs or backends.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from edge_resnet.artifact.card import model_card
from edge_resnet.artifact.graphcheck import check_graph
from edge_resnet.artifact.schema import SCHEMA_VERSION, CalibrationTable, FileEntry, ForeignSpec, Manifest
from edge_resnet.core.errors import ArtifactError, BuildError
from edge_resnet.core.files import is_known_schema, read_bounded, sha256_of
from edge_resnet.core.records import ModelSpec
from edge_resnet.core.staging import new_folder

__all__ = [
    "CALIBRATION",
    "CARD",
    "CORRECTIONS",
    "LABELS",
    "MANIFEST",
    "MODEL",
    "Artifact",
    "describe_files",
    "newest_artifact",
    "open_artifact",
    "read_record",
    "rewrite_manifest",
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
CARD = "README.md"
_ENGINES = "engines"
#: Packages whose versions the manifest names.
_TOOLS = ("edge-resnet", "numpy", "onnx", "onnxruntime", "pillow", "torch")

#: What a manifest and labels are allowed to take before they are parsed, in bytes: 500 and 50 times those of ImageNet's networks.
_MAX_MANIFEST, _MAX_LABELS = 1 << 20, 1 << 24
_AGAIN = "build the artifact again"
#: The records of which a manifest holds one, as pydantic names them.
_KINDS = (ModelSpec.__name__, ForeignSpec.__name__)

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
            raise ArtifactError(f"{self.folder} has no {CALIBRATION}", hint="edge-resnet build --int8 makes one with ranges")
        table = read_record(path, CalibrationTable)
        if table.model_digest != self.manifest.files[MODEL].sha256:
            raise ArtifactError(f"{path} was measured on another graph", hint=_AGAIN)
        return table

    def source_digest(self) -> str:
        """Sha256 over what every engine derives from: the graph and, if present, the ranges and corrections."""
        names = sorted(name for name in self.manifest.files if name in (MODEL, CALIBRATION, CORRECTIONS))
        return hashlib.sha256("".join(self.manifest.files[name].sha256 for name in names).encode()).hexdigest()

    def engine_folder(self, key: str) -> Path:
        """The folder in which the engine of that key is cached; it may not exist."""
        return self.folder / _ENGINES / key


def open_artifact(folder: Path) -> Artifact:
    """Open an artifact and check its schema, every size and sha256, that no path leaves the folder, and what the graph contains.

    Raises ArtifactError that names the first fault. Engines are a cache and are checked when they are loaded.
    """
    path = folder / MANIFEST
    try:
        exists, has_manifest = folder.exists(), path.is_file()
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read: {error.strerror}", hint="name the folder that build wrote") from error
    if not exists:
        raise ArtifactError(f"no artifact at {folder}", hint="create one with edge-resnet build; -o names its folder")
    if not has_manifest:
        raise ArtifactError(f"{folder} is not an artifact: it has no {MANIFEST}", hint="name the folder that build wrote")
    _check_schema(path)
    manifest = read_record(path, Manifest, _MAX_MANIFEST)
    for name in (MODEL, LABELS, *([CALIBRATION] if manifest.precision == "int8" else [])):
        if name not in manifest.files:
            raise ArtifactError(f"{path} does not list {name}", hint=_AGAIN)
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry)
    labels = _read_labels(folder / LABELS, manifest.model.classes)
    check_graph(folder / MODEL)
    artifact = Artifact(folder, manifest, labels)
    if manifest.confidence is not None and manifest.confidence.source != artifact.source_digest():
        raise ArtifactError(f"{path}: the threshold was measured on another graph or other ranges", hint=_AGAIN)
    return artifact


def newest_artifact(root: Path) -> Path:
    """The artifact under ``root`` whose manifest was written last. Raises ArtifactError if there is none."""
    written: dict[Path, int] = {}
    for path in root.glob(f"*/{MANIFEST}"):
        with suppress(OSError):  # a link that leads nowhere or to itself
            if not path.parent.name.startswith("."):
                written[path.parent] = path.stat().st_mtime_ns
    if not written:
        hint = "create one with edge-resnet build --depth 50 --int8, or name a folder"
        raise ArtifactError(f"no artifact under {root}/", hint=hint)
    return max(written, key=written.__getitem__)


def read_record(path: Path, record: type[T], max_bytes: int = 1 << 24) -> T:
    """Parse a JSON file of at most ``max_bytes`` as a record; no text is taken for a number, nor true for 1.

    Raises ArtifactError that names the first field that is wrong. Anything but a regular file is refused without being read.
    """
    try:
        return TypeAdapter(record).validate_json(read_bounded(path, max_bytes, regular=True), strict=True)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint=_AGAIN) from error
    except ValidationError as error:
        where, fault = _first_fault(error)
        raise ArtifactError(f"{path}: {where}: {fault}", hint=_AGAIN) from error


def _first_fault(error: ValidationError) -> tuple[str, str]:
    """Where and what the first fault is. Where a field may be one of two records, that which has fewer faults is meant."""
    kinds: dict[str, list[tuple[str, str]]] = {"": []}
    for found in error.errors(include_url=False, include_input=False):
        kind = next((part for part in found["loc"] if part in _KINDS), "")
        where = ".".join(str(part) for part in found["loc"] if part not in _KINDS)
        kinds.setdefault(str(kind), []).append((ascii(where[:100]).strip("'"), found["msg"][:200]))
    return (kinds.pop("") or min(kinds.values(), key=len))[0]


@contextmanager
def staging(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` if the block succeeds and is removed if it fails.

    Nothing is left half-written, not even on Ctrl-C. With ``force`` an existing artifact is replaced, also one that a link leads
    to; anything else that exists is refused, before the block and again at its end, and so is the working folder. Raises
    BuildError, also if the disk is full or read-only.
    """
    target = target if target.name not in ("", "..") else target.resolve()
    with _writing(target, force=force):
        if os.path.lexists(target) and not force:
            raise BuildError(f"{target} exists already", hint="choose another folder with -o, or replace it with --force")
        if os.path.lexists(target) and not _is_artifact(target):
            raise BuildError(f"{target} is not an artifact, so --force does not replace it", hint="choose another folder with -o")
        place = Path(os.path.realpath(target)) if target.is_symlink() else target
        if os.path.lexists(place) and Path.cwd().is_relative_to(place.resolve()):
            raise BuildError(f"{target} is the working folder, and cannot be replaced", hint="change to another folder first")
        with new_folder(place, replaces=_is_artifact if force else None) as work:
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
    """Write the model card, then the manifest over the files in ``folder``, with the time and the versions of the tools.

    This is an artifact's last step.
    """
    (folder / CARD).write_text(model_card(manifest), encoding="utf-8")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    tools = {name: version(name) for name in _TOOLS}
    write_json(folder / MANIFEST, replace(manifest, created=now, tools=tools, files=describe_files(folder)))


def rewrite_manifest(artifact: Artifact, manifest: Manifest) -> Artifact:
    """Replace an artifact's manifest and model card by those of ``manifest``, in one step; all other files stay.

    The time and tools of the build stay, too. A copy of the folder, whose files are links to the
    same content where the file system can, takes its place, so that after a kill the old or the new one is there. Raises
    BuildError if the folder cannot be written or is the working folder.
    """
    with staging(artifact.folder, force=True) as folder:
        for path in sorted(artifact.folder.iterdir()):
            if path.name in (MANIFEST, CARD):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.copytree(path, folder / path.name, symlinks=True, copy_function=_link)
            else:
                _link(path, folder / path.name)
        (folder / CARD).write_text(model_card(manifest), encoding="utf-8")
        card = FileEntry(sha256_of(folder / CARD), (folder / CARD).stat().st_size)
        current = replace(manifest, schema_version=SCHEMA_VERSION, files={**manifest.files, CARD: card})
        write_json(folder / MANIFEST, current)
    return open_artifact(artifact.folder)


def _link(source: str | Path, target: str | Path) -> None:
    """Another name of the same file, or a copy where the file system has no such names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


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
        found = from_json(read_bounded(path, _MAX_MANIFEST, regular=True))["schema_version"]
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint=_AGAIN) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a manifest", hint=_AGAIN) from error
    if not is_known_schema(found, SCHEMA_VERSION):
        newer = type(found) is int and found > SCHEMA_VERSION
        message = f"{path} has schema {ascii(found)[:40]}, this edge-resnet reads 1 to {SCHEMA_VERSION}"
        raise ArtifactError(message, hint="pip install -U edge-resnet" if newer else _AGAIN)


def _read_labels(path: Path, classes: int) -> tuple[str, ...]:
    try:
        text = read_bounded(path, _MAX_LABELS, regular=True).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ArtifactError(f"{path} cannot be read: {reason}", hint=_AGAIN) from error
    labels = tuple(text.removesuffix("\n").split("\n"))
    if len(labels) != classes:
        raise ArtifactError(f"{path} has {len(labels)} lines for {classes} classes", hint=_AGAIN)
    return labels


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    path = folder / name
    again = "copy the artifact again, or build it again"
    try:
        if not _is_file_name(name) or not path.resolve().is_relative_to(folder.resolve()):
            message = f"{folder / MANIFEST} names a file outside the artifact: {name[:60]!a}"
            raise ArtifactError(message, hint="do not use this artifact")
        if not path.is_file():
            raise ArtifactError(f"{path} is missing", hint=again)
        if path.stat().st_size != entry.size or sha256_of(path) != entry.sha256:
            raise ArtifactError(f"{path} was changed after the build", hint=again)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        reason = error.strerror if isinstance(error, OSError) else "it is a link to itself"
        raise ArtifactError(f"{path} cannot be read: {reason}", hint=again) from error


def _is_file_name(name: str) -> bool:
    """Whether ``name`` can name a file directly in a folder: no path, no NUL, and not longer than file systems take."""
    return name not in ("", ".", "..") and not {"/", "\0"} & set(name) and len(name.encode("utf-8", "replace")) <= 255
