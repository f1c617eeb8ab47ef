"""Files and folders put in place in one step, and the removal of what killed processes left. Does not know what they contain.

A writer fills a scratch folder beside its target, ``.NAME.edge-resnet-RANDOM.part``, which it keeps locked; what it made is
synced to the disk and renamed. A scratch folder that no process has locked was left by one that was killed: the next writer in
the same folder removes it. On a file system without locks on folders, such as NFS, it stays.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["new_folder", "replace_files", "sweep", "sync_folder"]

_log = logging.getLogger(__name__)

_SCRATCH = re.compile(r"\..{0,40}\.edge-resnet-[0-9a-f]{16}\.part", re.DOTALL)
#: Flags of renameat2 (Linux, include/uapi/linux/fs.h), and the place that stands for the working folder.
_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100
#: What a file system or a sandbox answers that lacks these flags: NFS and older vfat EINVAL, older kernels ENOSYS.
_NO_FLAGS = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
#: What a file system answers on which a folder cannot be locked: NFS EBADF.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


@dataclass(frozen=True)
class _Scratch:
    """A locked folder. ``old`` holds what was moved aside, and belongs back where it was until it is superseded."""

    folder: Path

    @property
    def old(self) -> Path:
        return self.folder / "old"

    @property
    def superseded(self) -> Path:
        return self.folder / "superseded"


@contextmanager
def new_folder(target: Path, *, replaces: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target``, synced to the disk, if the block succeeds, and is removed if it fails.

    What is at ``target`` when the block ends is kept, and FileExistsError raised, unless ``replaces`` is given and true for it:
    then the two are exchanged in one step. Where the file system cannot exchange (NFS), the old one is moved aside first; after a
    kill between the two renames the next writer brings it back. Raises OSError.
    """
    with _scratch_beside(target) as scratch:
        made = scratch.folder / "new"
        made.mkdir()
        yield made
        _sync_tree(made)
        try:
            _rename_onto_nothing(made, target)
        except FileExistsError:
            if replaces is None or not replaces(target):
                raise
            _supersede(scratch, made, target, replaces)
        sync_folder(target.parent)


def replace_files(
    writers: Mapping[Path, Callable[[Path], object]], *, private: bool = False, force: bool = True, swept: bool = False
) -> None:
    """Let each of ``writers`` fill a temporary file, and rename them to their paths once all are complete and on the disk.

    Parent folders are created. ``private``: at no moment can anyone but the owner read the files. Without ``force`` a file that
    exists by then is kept, and FileExistsError raised. ``swept``: the caller has called ``sweep``, as one does that writes many
    files into a folder. What is not a regular file, such as a device, is never replaced. The
    names reach the disk when the system writes them, within about half a minute: until then a power cut leaves the old files.
    Raises OSError and what a writer raises; then every path holds what it held before.
    """
    with ExitStack() as stack:
        scratches: dict[Path, _Scratch] = {}
        for path in writers:
            if path.parent not in scratches:
                scratches[path.parent] = stack.enter_context(_scratch_beside(path, swept=swept))
        parts = {path: scratches[path.parent].folder / path.name for path in writers}
        for path, write in writers.items():
            part = parts[path]
            part.touch(mode=0o600 if private else 0o666, exist_ok=False)
            mode = part.stat().st_mode
            write(part)
            part.chmod(mode)  # safetensors creates files that only their owner may read
            _sync(part)
        for path in parts:
            _check_replaceable(path, force=force)
        for path, part in parts.items():
            part.replace(path) if force else _rename_onto_nothing(part, path)


def sweep(folder: Path) -> None:
    """Remove the scratch folders that killed processes of this user left in ``folder``; those in use are not touched.

    What such a process had moved aside and not yet replaced is brought back, and said. What cannot be removed stays.
    """
    found: list[Path] = []
    with suppress(OSError), os.scandir(folder) as entries:
        found = [folder / entry.name for entry in entries if _SCRATCH.fullmatch(entry.name) and _is_own_folder(entry)]
    for path in found:
        with suppress(OSError):
            lock = _lock(path, required=True)
            if lock is not None:
                try:
                    _clear(_Scratch(path))
                finally:
                    os.close(lock)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk; not every file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _scratch_beside(target: Path, *, swept: bool = False) -> Iterator[_Scratch]:
    """A locked scratch folder on the file system of ``target``, whose parent folders are made; removed after the block."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not swept:
        sweep(target.parent)
    lock = None
    while lock is None:  # a second turn if it was swept between the steps
        scratch = _Scratch(target.parent / f".{target.name[:40]}.edge-resnet-{secrets.token_hex(8)}.part")
        try:
            scratch.folder.mkdir(mode=0o700)
            lock = _lock(scratch.folder, required=False)
        except BaseException:
            _clear(scratch)
            raise
    try:
        yield scratch
    finally:
        try:
            _clear(scratch)
        except KeyboardInterrupt:  # most of a small file's time is spent here
            _clear(scratch)
            raise
        finally:
            os.close(lock)


def _lock(folder: Path, *, required: bool) -> int | None:
    """The descriptor that holds the lock of a scratch folder; None if another process holds it, or has removed the folder.

    Not ``required``: where the file system has no locks, a descriptor without one. Raises OSError.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if required or error.errno not in _NO_LOCKS:
                raise
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    found = entry.stat(follow_symlinks=False)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _clear(scratch: _Scratch) -> None:
    """Bring back what was moved aside and not superseded, and remove the rest. Never removes what it could not bring back."""
    with suppress(OSError):
        for entry in scratch.old.iterdir():
            place = scratch.folder.parent / entry.name
            _rename_onto_nothing(entry, place)
            _log.warning("%s is back: it had been moved aside and was not replaced", place)
    with suppress(OSError):
        scratch.old.rmdir()
    if scratch.old.is_dir():
        _log.warning("%s holds what could not be brought back", scratch.old)
        return
    shutil.rmtree(scratch.folder, ignore_errors=True)


def _supersede(scratch: _Scratch, made: Path, target: Path, replaces: Callable[[Path], bool]) -> None:
    """Put ``made`` in the place of ``target``. Raises FileExistsError if what was there at that moment may not be replaced."""
    try:
        _renameat2(made, target, _EXCHANGE)
    except OSError as error:
        if error.errno not in _NO_FLAGS:
            raise
    else:
        if not replaces(made):  # it appeared after the check: it goes back
            _renameat2(made, target, _EXCHANGE)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        return
    scratch.old.mkdir()
    kept = scratch.old / target.name
    target.rename(kept)
    if not replaces(kept):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    _rename_onto_nothing(made, target)
    scratch.old.rename(scratch.superseded)


def _rename_onto_nothing(source: Path, target: Path) -> None:
    """Rename, and raise FileExistsError if anything is at ``target``.

    Without RENAME_NOREPLACE an empty file or folder claims the name first, which fails if it is taken, and is then replaced. A
    kill between these two steps leaves it empty.
    """
    try:
        _renameat2(source, target, _NOREPLACE)
    except OSError as error:
        if error.errno not in _NO_FLAGS:
            raise
    else:
        return
    folder = source.is_dir() and not source.is_symlink()
    if folder:
        target.mkdir()
    else:
        target.touch(exist_ok=False)
    try:
        source.rename(target)
    except OSError as error:
        with suppress(OSError):
            target.rmdir() if folder else target.unlink()
        if error.errno == errno.ENOTEMPTY:  # another process filled the folder
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


def _renameat2(source: Path, target: Path, flags: int) -> None:
    """Linux's renameat2, which Python does not offer. Raises OSError, with ENOSYS where the C library has none."""
    import ctypes  # late: --help does not need it

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(target))
    if library.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def _check_replaceable(path: Path, *, force: bool) -> None:
    if not force and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it exists and is not a regular file", str(path))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())  # a rename that outlives its content leaves an empty file after a power cut


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(root, name)
            if stat.S_ISREG(path.lstat().st_mode):
                _sync(path)
        sync_folder(Path(root))
