"""The engines folder of an artifact: what was derived for some machine, with the hash of each file. Knows no engine format."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.artifact import Artifact, describe_files, staging, write_json
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import FileEntry

__all__ = ["EngineMeta", "find_engine", "store_engine"]

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
        whole = meta["key"] == key and meta["truth"] == artifact.truth_digest()
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
        write_json(work / META, EngineMeta(key, form, artifact.truth_digest(), describe_files(work)))
    return folder
