"""Files written whole or not at all, and JSON files read. Does not know what they contain."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from platformdirs import user_cache_path

from edge_resnet.core.errors import BuildError, DataError
from edge_resnet.core.staging import replace_files

__all__ = [
    "cache_folder",
    "check_free",
    "is_known_schema",
    "kind_of",
    "lock",
    "parse_record",
    "prune_cache",
    "read_bounded",
    "read_cache",
    "read_json",
    "read_limited",
    "replace_files",
    "sha256_of",
    "write_cache",
    "write_together",
    "write_whole",
]

#: A report's samples are a few MiB.
_MAX_JSON = 256 << 20
#: What libraries cache of a network is a few MiB.
_MAX_CACHE = 1 << 30
#: Of one kind, each for one engine or GPU.
_CACHES = 32
_log = logging.getLogger(__name__)


def write_together(contents: Mapping[Path, bytes], *, force: bool = True) -> None:
    """Write all of the files or none. Without ``force`` files that exist by then are kept. Raises BuildError."""
    try:
        replace_files({path: partial(Path.write_bytes, data=content) for path, content in contents.items()}, force=force)
    except OSError as error:
        names = " and ".join(map(str, contents))
        hint = "check the path and the free disk space"
        if isinstance(error, FileExistsError) and not force:
            hint = "choose another name, or replace it with --force"
        raise BuildError(f"cannot write {names}: {error.strerror or error}", hint=hint) from error


def write_whole(path: Path, content: bytes, *, force: bool = True) -> Path:
    """Write ``content`` to ``path`` and return ``path``. Without ``force`` a file that exists by then is kept.

    Raises BuildError.
    """
    write_together({path: content}, force=force)
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
    try:
        found, parent = path.exists(), path.parent.is_dir()
        regular = path.is_file()
    except OSError as error:
        raise BuildError(f"{path} cannot be written: {error.strerror}", hint="choose another name") from error
    if not parent:
        raise BuildError(f"{path} cannot be written: the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
    if found and not regular:
        what = "a folder" if path.is_dir() else "not a regular file"
        raise BuildError(f"{path} cannot be written: it is {what}", hint="name a file, which may be new")
    if found and not force:
        raise BuildError(f"{path} exists already", hint="choose another name, or replace it with --force")


def read_limited(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file of at most ``max_bytes``: a pipe or a device may never end.

    Raises DataError for anything else, and if it cannot be read.
    """
    try:
        return read_bounded(path, max_bytes, regular=True)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}", hint="check the name, what it is and its permissions") from error


def read_bounded(path: Path, max_bytes: int, *, regular: bool = False) -> bytes:
    """The content of a file of at most ``max_bytes``. ``regular``: refuse anything else, such as a FIFO, without waiting for it.

    Raises OSError, also where the file is larger.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if regular else 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        if regular and not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than the {max_bytes / 2**20:.3g} MiB that it may have", str(path))
    return content


def is_known_schema(version: object, highest: int) -> bool:
    """Whether ``version`` is a schema that a reader of up to ``highest`` knows: they are whole numbers from 1 on."""
    return type(version) is int and 1 <= version <= highest


T = TypeVar("T")


def read_json(path: Path, again: str = "measure again") -> Any:
    """The content of a JSON file of at most 256 MiB; a pipe is read as well.

    Raises DataError if it cannot be read or parsed; ``again``: the remedy for the latter.
    """
    try:
        return json.loads(read_bounded(path, _MAX_JSON).decode("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check the spelling") from error
    except (ValueError, RecursionError) as error:
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
    if not is_known_schema(version, schema):
        raise DataError(f"{path} has schema {version}, this edge-resnet reads up to {schema}", hint="pip install -U edge-resnet")
    try:
        return TypeAdapter(record).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", hint=again) from error


def cache_folder() -> Path:
    """The folder for downloads and compiled code: ``edge-resnet`` in $XDG_CACHE_HOME or ~/.cache. It may not exist yet."""
    return user_cache_path("edge-resnet", appauthor=False)


def read_cache(path: Path, what: str) -> bytes:
    """The content of a cache's file; empty if there is none or it cannot be read, which is logged. ``what``: its name there.

    The file's time becomes that of its last use, by which ``prune_cache`` chooses.
    """
    try:
        content = read_bounded(path, _MAX_CACHE, regular=True)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        _log.warning("the %s %s cannot be read (%s): this will take longer", what, path, error.strerror)
        return b""
    with suppress(OSError):  # of another user
        os.utime(path)
    return content


def write_cache(path: Path, content: bytes, what: str) -> bool:
    """Write a cache's file, whole or not at all. A failure is logged, and only makes the next time slower."""
    try:
        replace_files({path: lambda part: part.write_bytes(content)})
    except OSError as error:
        _log.warning("the %s %s cannot be written: %s", what, path, error.strerror or error)
        return False
    return True


def prune_cache(path: Path, what: str) -> None:
    """Remove all but 32 of the files in the folder of ``path`` with its suffix: it and those that were used last remain."""
    used: dict[Path, int] = {}
    for other in path.parent.glob(f"*{path.suffix}"):
        with suppress(OSError):  # another process prunes, too
            used[other] = other.lstat().st_mtime_ns
    for other in sorted(used.keys() - {path}, key=used.__getitem__, reverse=True)[_CACHES - 1 :]:
        with suppress(OSError):
            other.unlink()
            _log.info("the %s %s is removed: %d others were used since", what, other, _CACHES)


def sha256_of(path: Path) -> str:
    """Sha256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
