"""A file of whole lines, rotated by size. Does not know what the lines contain."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from edge_resnet.core.files import lock
from edge_resnet.core.staging import sync_folder

__all__ = ["FileInUseError", "LineFile", "Sync"]

_log = logging.getLogger(__name__)

#: When lines are synced to disk: never (the system does it within about half a minute), once a second, or each line.
Sync: TypeAlias = Literal["never", "interval", "always"]

_EVERY_S = 1.0
#: How much of the end of a file is searched for its last newline; no line is nearly as long.
_TAIL = 1 << 20


class FileInUseError(OSError):
    """Another process writes to the file."""


class LineFile:
    """Appends lines to ``path``. With ``max_bytes`` a line that would make it larger goes to a new file of that name; the older
    files are ``path.1`` (the newest) to ``path.keep``, and those before them are deleted.

    A line is written whole or not at all: if the disk takes only a part, that part is removed. If a file that is continued ends
    in an incomplete line, as after a power cut, the line is cut off if it is the beginning of a JSON object, and is ended by a
    newline otherwise. If a new file cannot be opened or the files cannot be renamed, the line goes to the old one. A file that
    another program renames or removes is created again within a second. Of a link, the file that it leads to is rotated, in its
    own folder.

    While it is open a file is locked: FileInUseError is raised, and nothing is changed, if another process writes to it. The
    constructor waits, with a warning, for the reader of a pipe. Raises OSError.
    """

    def __init__(self, path: Path, *, append: bool, max_bytes: int | None = None, keep: int = 5, sync: Sync = "never") -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._sync = sync
        self._synced_s = self._checked_s = time.monotonic()
        self._dirty = False
        self._ragged = False
        self._rotates = True
        self._fd: int | None = _open(path)
        try:
            self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
            if self._regular:
                self._new.unlink(missing_ok=True)  # of a process that was killed while it rotated
                if append:
                    self._repair_end()
                else:
                    os.ftruncate(self._fd, 0)  # not before it is locked: another process may write to it
        except OSError:
            self.close()
            raise
        if sync != "never":
            sync_folder(path.parent)

    def write(self, line: str) -> None:
        """Append one line, given without its newline."""
        if self._fd is None:
            raise OSError(0, "it is closed")
        data = line.encode("ascii") + b"\n"
        if self._regular and (self._is_full(len(data)) or self._is_gone()):
            self._rotate()
        self._append(data)
        self.tick()

    def tick(self) -> None:
        """Sync what is due; to be called at times when no line is written."""
        now = time.monotonic()
        if self._dirty and (self._sync == "always" or (self._sync == "interval" and now - self._synced_s >= _EVERY_S)):
            self._sync_data()
            self._synced_s = now

    def close(self) -> None:
        """Sync the rest, unless ``sync`` is never, and close."""
        if self._fd is None:
            return
        try:
            if self._dirty and self._sync != "never":
                self._sync_data()
        finally:
            fd, self._fd = self._fd, None
            os.close(fd)

    def _is_full(self, more: int) -> bool:
        assert self._fd is not None
        if self._max_bytes is None:
            return False
        size = os.fstat(self._fd).st_size
        return size > 0 and size + more > self._max_bytes

    def _is_gone(self) -> bool:
        """Whether another program has renamed or removed the file; checked once a second."""
        now = time.monotonic()
        if now - self._checked_s < _EVERY_S:
            return False
        self._checked_s = now
        return not self._is_at(self._path)

    def _append(self, data: bytes) -> None:
        assert self._fd is not None
        if self._ragged:
            data = b"\n" + data
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            self._remove_incomplete(done)
            raise
        self._ragged = False
        self._dirty = True

    def _remove_incomplete(self, count: int) -> None:
        """Remove an incomplete line, of which ``count`` bytes were written."""
        assert self._fd is not None
        if not (count and self._regular):
            self._ragged = self._ragged or count > 0
            return
        try:
            os.ftruncate(self._fd, max(0, os.fstat(self._fd).st_size - count))
        except OSError:
            self._ragged = True

    def _sync_data(self) -> None:
        assert self._fd is not None
        if self._regular:
            os.fdatasync(self._fd)
        self._dirty = False

    def _rotate(self) -> None:
        """Start a new file; if that fails, keep the old one and try again with the next line."""
        assert self._fd is not None
        try:
            if self._sync != "never":
                self._sync_data()
            # If it is not there, another program has renamed it.
            new = self._replaced() if self._is_at(self._path) else _open(self._path)
            os.close(self._fd)
            self._fd, self._ragged, self._rotates = new, False, True
            if self._sync != "never":
                sync_folder(self._path.parent)
        except OSError as error:
            if self._rotates:
                _log.warning("%s cannot be rotated, its lines go to the old file: %s", self._path, error.strerror)
            self._rotates = False

    def _replaced(self) -> int:
        """A new file, open before the old ones are renamed: if that fails, nothing has moved."""
        new = _open(self._new)
        try:
            self._shift()
            self._new.replace(self._older(0))
        except OSError:
            os.close(new)
            with suppress(OSError):
                self._new.unlink(missing_ok=True)
            raise
        return new

    @property
    def _new(self) -> Path:
        return self._older(0).with_name(f".{self._older(0).name}.new")

    def _is_at(self, path: Path) -> bool:
        assert self._fd is not None
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._fd), path.stat())
        return False

    def _shift(self) -> None:
        """Rename ``path`` to ``path.1``, and the older files up to the first gap: else a rotation that failed half way would,
        repeated, delete every old file."""
        gap = next((place for place in range(1, self._keep) if not self._older(place).exists()), self._keep)
        for place in range(gap, 0, -1):
            self._older(place - 1).replace(self._older(place))

    def _older(self, place: int) -> Path:
        real = os.path.realpath(self._path)  # of a link: else the link would be renamed, and the lines go elsewhere
        return Path(f"{real}.{place}" if place else real)

    def _repair_end(self) -> None:
        """Cut off an incomplete last line, or have the next write end it."""
        assert self._fd is not None
        size = os.fstat(self._fd).st_size
        with self._path.open("rb") as file:
            file.seek(max(0, size - _TAIL))
            tail = file.read()
        half = tail[tail.rfind(b"\n") + 1 :]
        if not half:
            return
        text = half.rstrip(b"\0")  # blocks that a file system has allocated and not yet written read as zeros
        if len(half) < _TAIL and text.startswith(b"{") and not _is_whole(text):
            text = b""
        if len(text) < len(half):
            _log.warning(
                "%s ended in an incomplete line, as after a power cut: %d bytes are cut off", self._path, len(half) - len(text)
            )
            os.ftruncate(self._fd, size - len(half) + len(text))
        self._ragged = bool(text)


def _open(path: Path) -> int:
    """Open a file to append to it, and lock it; wait for the reader of a pipe."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        _log.warning("%s is a pipe that nobody reads: waiting for a reader", path)
        fd = os.open(path, flags, 0o666)
    try:
        os.set_blocking(fd, True)
        opened = os.fstat(fd)
        # Between opening and locking the other process may have renamed it.
        if stat.S_ISREG(opened.st_mode) and not (lock(fd) and os.path.samestat(opened, path.stat())):
            raise FileInUseError(errno.EAGAIN, "another process writes to it")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
