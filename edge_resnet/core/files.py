"""Files written atomically (to a temporary file, synced, renamed), and JSON files read. Does not know what they contain."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from platformdirs import user_cache_path

from edge_resnet.core.errors import BuildError, DataError

__all__ = [
    "cache_folder",
    "check_free",
    "kind_of",
    "lock",
    "parse_record",
    "read_json",
    "replace_files",
    "sha256_of",
    "write_together",
    "write_whole",
]


def replace_files(writers: Mapping[Path, Callable[[Path], object]], *, private: bool = False) -> None:
    """Let each of ``writers`` fill a temporary file beside its path, and rename them once all are complete and on the disk.

    Parent folders are created. ``private``: at no moment can anyone but the owner read the files. Raises OSError and what a
    writer raises; then every path holds what it held before.
    """
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in writers}
    try:
        for path, write in writers.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = parts[path]
            part.unlink(missing_ok=True)  # of a process that was killed and had the same number
            part.touch(mode=0o600 if private else 0o666, exist_ok=False)
            mode = part.stat().st_mode
            write(part)
            part.chmod(mode)  # safetensors creates files that only their owner may read
            with part.open("rb") as file:
                os.fsync(file.fileno())  # a rename that outlives its content leaves an empty file after a power cut
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink()


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write all of the files, replacing existing ones, or none. Raises BuildError."""
    try:
        replace_files({path: partial(Path.write_bytes, data=content) for path, content in contents.items()})
    except OSError as error:
        names = " and ".join(map(str, contents))
        hint = "check the path and the free disk space"
        raise BuildError(f"cannot write {names}: {error.strerror or error}", hint=hint) from error


def write_whole(path: Path, content: bytes) -> Path:
    """Write ``content`` to ``path``, replacing an existing file, and return ``path``. Raises BuildError."""
    write_together({path: content})
    return path


def lock(fd: int) -> bool:
    """Lock an open file or folder for this process until it is closed; False if another one has locked it.

    The lock is advisory (flock(2)). A file system that has no locks counts as not locked.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    return True


def check_free(path: Path, *, force: bool) -> None:
    """Raise BuildError if ``path`` cannot be written: before a long measurement rather than after it."""
    if path.is_dir():
        raise BuildError(f"{path} cannot be written: it is a folder", hint="name a file in that folder")
    if not path.parent.is_dir():
        raise BuildError(f"{path} cannot be written: the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
    if path.exists() and not force:
        raise BuildError(f"{path} exists already", hint="choose another name, or replace it with --force")


T = TypeVar("T")


def read_json(path: Path, again: str = "measure again") -> Any:
    """The content of a JSON file. Raises DataError if it cannot be read or parsed; ``again``: the remedy for the latter."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check the spelling") from error
    except ValueError as error:
        raise DataError(f"{path} is cut off or not JSON: {error}", hint=f"copy it again, or {again}") from error


def kind_of(path: Path) -> str | None:
    """The command that wrote the file, None if the file does not name one. Raises DataError as ``read_json`` does."""
    content = read_json(path)
    first = content[0] if isinstance(content, list) and content else content
    kind = first.get("kind") if isinstance(first, dict) else None
    return kind if isinstance(kind, str) else None


def parse_record(path: Path, content: Any, record: type[T], *, kind: str, schema: int) -> T:
    """Parse the ``content`` of ``path`` as the dataclass ``record``, which has the fields ``kind`` and ``schema_version``.

    ``kind``: the command that writes it. Raises DataError if it is of another kind, has a schema above ``schema``, or its fields
    do not fit the record.
    """
    from pydantic import TypeAdapter, ValidationError  # late: doctor reports a pydantic that is missing or broken

    again = f"run {kind} again"
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise DataError(f"{path} was not written by {kind}", hint=again)
    version = content.get("schema_version")
    if not isinstance(version, int) or version > schema:
        raise DataError(f"{path} has schema {version}, this edge-resnet reads up to {schema}", hint="pip install -U edge-resnet")
    try:
        return TypeAdapter(record).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", hint=again) from error


def cache_folder() -> Path:
    """The folder for downloads and compiled code: ``edge-resnet`` in $XDG_CACHE_HOME or ~/.cache. It may not exist yet."""
    return user_cache_path("edge-resnet", appauthor=False)


def sha256_of(path: Path) -> str:
    """Sha256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
