"""Files and folders appear whole, never over what may not be replaced, and what a killed process left is removed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_resnet.core import staging
from edge_resnet.core.staging import new_folder, replace_files, sweep

#: What a process leaves that is killed while it writes the folder ``x``, and then holds its lock for ever.
_WRITER = """
import sys, time
from pathlib import Path
from edge_resnet.core.staging import new_folder
with new_folder(Path(sys.argv[1])) as work:
    (work / "half").write_text("x")
    print("ready", flush=True)
    time.sleep(600)
"""
_CODES = [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM]


def _always(_: Path) -> bool:
    return True


@pytest.fixture(params=["renameat2", *_CODES], ids=["renameat2", *(errno.errorcode[code] for code in _CODES)])
def renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    """The test runs with renameat2's flags, and without them as on NFS, on old kernels and in sandboxes."""
    if request.param != "renameat2":

        def refused(source: Path, target: Path, flags: int) -> None:
            raise OSError(request.param, os.strerror(request.param), str(target))

        monkeypatch.setattr(staging, "_renameat2", refused)
    return request.param


def _held(text: str, path: Path) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


@pytest.mark.usefixtures("renames")
def test_a_folder_that_appeared_is_kept(tmp_path: Path) -> None:
    """A folder that another process made during the block is kept with its files; the work is removed."""

    def make() -> None:
        with new_folder(tmp_path / "x") as work:
            (work / "file").write_text("new")
            _held("notes of a week", tmp_path / "x")

    with pytest.raises(FileExistsError):
        make()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "file").read_text() == "notes of a week"


@pytest.mark.usefixtures("renames")
def test_of_two_writers_one_is_told(tmp_path: Path) -> None:
    """Two processes make the same folder: the first to finish has it, the other is refused."""

    def make(text: str, meanwhile: Callable[[], None]) -> None:
        with new_folder(tmp_path / "x") as work:
            (work / "file").write_text(text)
            meanwhile()

    with pytest.raises(FileExistsError):
        make("second", lambda: make("first", lambda: None))
    assert (tmp_path / "x" / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.usefixtures("renames")
@pytest.mark.parametrize("kind", ["folder", "file", "link", "loop"])
def test_what_is_replaced_goes_as_a_whole(tmp_path: Path, kind: str) -> None:
    """Whatever had the name is gone, a link is not followed, and nothing else is left."""
    target, elsewhere = tmp_path / "x", _held("kept", tmp_path / "elsewhere")
    if kind == "folder":
        _held("old", target)
    elif kind == "file":
        target.write_text("old")
    else:
        target.symlink_to(elsewhere if kind == "link" else target)
    with new_folder(target, replaces=_always) as work:
        (work / "file").write_text("new")
    assert not target.is_symlink()
    assert (target / "file").read_text() == "new"
    assert (elsewhere / "file").read_text() == "kept"
    assert sorted(tmp_path.iterdir()) == [elsewhere, target]


def test_one_of_the_two_is_there_at_any_moment(tmp_path: Path) -> None:
    """At every call that Python makes while a folder is replaced, the old or the new one is whole in its place."""
    try:
        staging._renameat2(_held("a", tmp_path / "a"), _held("b", tmp_path / "b"), staging._EXCHANGE)
    except OSError:
        pytest.skip("the file system cannot exchange two names")
    target, seen, before = _held("old", tmp_path / "x"), set[str](), sys.getprofile()

    def look(*_: object) -> None:
        seen.add((target / "file").read_text() if (target / "file").is_file() else "nothing")

    sys.setprofile(look)
    try:
        with new_folder(target, replaces=_always) as work:
            (work / "file").write_text("new")
    finally:
        sys.setprofile(before)
    assert seen == {"old", "new"}


@pytest.mark.usefixtures("renames")
def test_what_appears_after_the_check_is_brought_back(tmp_path: Path) -> None:
    """The folder is judged again once it can no longer change: one that may not be replaced is back in its place."""
    target = _held("home", tmp_path / "x")
    answers = iter([True, False])
    with pytest.raises(FileExistsError), new_folder(target, replaces=lambda _: next(answers)):
        pass
    assert (target / "file").read_text() == "home"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("renames")
def test_a_target_that_vanished(tmp_path: Path) -> None:
    """A folder that was to be replaced and has been removed meanwhile is simply made."""
    target = _held("old", tmp_path / "x")
    with new_folder(target, replaces=_always):
        shutil.rmtree(target)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("renames")
def test_a_file_that_appeared_is_kept(tmp_path: Path) -> None:
    """Without force a file that exists by the end is kept, and with it every other file of the same call."""
    first, second = tmp_path / "first", tmp_path / "second"

    def write(part: Path) -> None:
        part.write_text("new")
        second.write_text("appeared")

    with pytest.raises(FileExistsError) as caught:
        replace_files({first: lambda part: part.write_text("new"), second: write}, force=False)
    assert caught.value.filename == str(second)
    assert second.read_text() == "appeared"
    assert list(tmp_path.iterdir()) == [second]
    second.unlink()
    replace_files({first: lambda part: part.write_text("new")}, force=False)
    assert first.read_text() == "new"


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    """Neither a FIFO nor a link to a device becomes a file: as root that would break /dev/null."""
    fifo, link = tmp_path / "fifo", tmp_path / "null"
    os.mkfifo(fifo)
    link.symlink_to("/dev/null")
    for path in (fifo, link, tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            replace_files({path: lambda part: part.write_text("new")})
    assert fifo.is_fifo()
    assert link.is_symlink()


def test_everything_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and every folder is synced before the target exists, and the folder around it afterwards."""
    synced: list[tuple[str, bool]] = []
    target, real = tmp_path / "x", os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, target.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with new_folder(target) as work:
        (work / "inner").mkdir()
        (work / "inner" / "deep").write_text("x")
        (work / "file").write_text("x")
    assert synced[-1] == (tmp_path.name, True)
    assert {name for name, there in synced if not there} == {"new", "inner", "deep", "file"}


def _writer(target: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(target)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_only_what_nobody_holds_is_swept(tmp_path: Path) -> None:
    """The work of a live process stays, that of a killed one goes with the next write in the folder; strangers' files stay."""
    strangers = {".x.123.part", ".x.part", "x.edge-resnet-0123456789abcdef.part", ".y.edge-resnet-0123456789abcdef.part"}
    for name in strangers - {".y.edge-resnet-0123456789abcdef.part"}:
        (tmp_path / name).mkdir()
    (tmp_path / ".y.edge-resnet-0123456789abcdef.part").symlink_to(tmp_path)
    child = _writer(tmp_path / "x")
    try:
        sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == len(strangers) + 1
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    replace_files({tmp_path / "other": lambda part: part.write_text("x")})
    assert {path.name for path in tmp_path.iterdir()} == strangers | {"other"}


def test_names_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """In a container every start has the same process id: two scratch folders of one process and one target differ."""
    with new_folder(tmp_path / "x") as first, new_folder(tmp_path / "x.other") as second:
        names = {path.parent.name for path in (first, second)}
    assert len({re.sub(r".*-([0-9a-f]{16})\.part", r"\1", name) for name in names}) == 2
    assert not any(str(os.getpid()) in re.sub(r"[0-9a-f]{16}", "", name) for name in names)


def test_what_was_moved_aside_is_brought_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Killed between the two renames of a file system that cannot exchange: the next writer brings the old one back, and says
    so."""
    old = tmp_path / ".x.edge-resnet-0123456789abcdef.part" / "old"
    old.mkdir(parents=True)
    _held("old", old / "x")
    sweep(tmp_path)
    assert (tmp_path / "x" / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
    assert "is back" in caplog.text


def test_what_cannot_be_brought_back_is_not_removed(tmp_path: Path) -> None:
    """If another folder has the name by then, both are kept."""
    old = tmp_path / ".x.edge-resnet-0123456789abcdef.part" / "old"
    old.mkdir(parents=True)
    _held("old", old / "x")
    _held("new", tmp_path / "x")
    sweep(tmp_path)
    assert (old / "x" / "file").read_text() == "old"
    assert (tmp_path / "x" / "file").read_text() == "new"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EBADF])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """There files are written all the same, and nothing is swept, since nobody knows what is in use."""

    def refused(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(staging.fcntl, "flock", refused)
    with new_folder(tmp_path / "x"):
        sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_writers_and_sweepers_at_once(tmp_path: Path) -> None:
    """Threads that write and sweep in one folder do not take each other's work."""
    failed: list[BaseException] = []

    def work(write: Callable[[int], None]) -> None:
        try:
            for turn in range(25):
                write(turn)
        except BaseException as error:
            failed.append(error)

    def put(number: int) -> Callable[[int], None]:
        return lambda turn: replace_files({tmp_path / f"{number}": lambda part: part.write_text(str(turn))})

    threads = [threading.Thread(target=work, args=(put(number),)) for number in range(3)]
    threads += [threading.Thread(target=work, args=(lambda _: sweep(tmp_path),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "24", "1": "24", "2": "24"}


@pytest.mark.parametrize("name", ["old", "new", "superseded"])
def test_names_that_are_used_inside(tmp_path: Path, name: str) -> None:
    """A target may have the name of a part of a scratch folder."""
    replace_files({tmp_path / name: lambda part: part.write_text("x")})
    replace_files({tmp_path / name: lambda part: part.write_text("y")})
    assert (tmp_path / name).read_text() == "y"
    for _ in range(2):
        with new_folder(tmp_path / "folder" / name, replaces=_always):
            pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([name, "folder", name])


def test_a_long_name_fits(tmp_path: Path) -> None:
    """A name of as many bytes as a file system takes has a scratch folder too."""
    path = tmp_path / ("ü" * 127)
    replace_files({path: lambda part: part.write_text("x")})
    assert list(tmp_path.iterdir()) == [path]
