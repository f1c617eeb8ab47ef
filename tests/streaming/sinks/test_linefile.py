"""Files of lines: whole and in order, also after a power cut, on a full disk, and if rotations fail."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sinksamples import files_up_to

from edge_resnet.streaming.sinks import linefile
from edge_resnet.streaming.sinks.linefile import LineFile, Sync

#: Lines as the sink writes them: objects, no two of them alike.
_lines = st.lists(st.integers(0, 60), max_size=30).map(
    lambda sizes: [json.dumps({"n": number, "x": "x" * size}) for number, size in enumerate(sizes)]
)


@contextmanager
def _folder() -> Iterator[Path]:
    """A new folder for each of Hypothesis' examples."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "out.jsonl"


def _all(path: Path) -> list[Path]:
    """The lines of the older files and of the file, oldest first."""
    numbers = sorted((int(older.suffix[1:]) for older in path.parent.glob(f"{path.name}.*")), reverse=True)
    return [*(Path(f"{path}.{number}") for number in numbers), path]


def _read(path: Path) -> list[str]:
    return [line for part in _all(path) for line in part.read_text().splitlines()]


@given(_lines, st.integers(1, 300), st.integers(1, 8), st.booleans())
def test_rotation_keeps_the_order(lines: list[str], max_bytes: int, keep: int, restarts: bool) -> None:
    """The older files and the file, read in order, contain the newest lines; none is missing or cut."""
    with _folder() as path:
        file = LineFile(path, append=True, max_bytes=max_bytes, keep=keep)
        for line in lines:
            file.write(line)
            if restarts:
                file.close()
                file = LineFile(path, append=True, max_bytes=max_bytes, keep=keep)
        file.close()
        found = _read(path)
        assert found == lines[len(lines) - len(found) :]
        parts = _all(path)
        assert len(parts) <= keep + 1
        if len(parts) <= keep:
            assert found == lines
        for part in parts:
            assert part.stat().st_size <= max_bytes or len(part.read_text().splitlines()) == 1


@given(_lines, st.data())
def test_a_power_cut_costs_one_line_at_most(lines: list[str], data: st.DataObject) -> None:
    """Cut anywhere and continued, a file contains every whole line and the new ones, each on its own line."""
    content = "".join(f"{line}\n" for line in lines).encode()
    cut = content[: data.draw(st.integers(0, len(content)))] + b"\0" * data.draw(st.integers(0, 3))
    whole = [line for number, line in enumerate(lines) if len("\n".join(lines[: number + 1])) <= len(cut.rstrip(b"\0"))]
    with _folder() as path:
        path.write_bytes(cut)
        file = LineFile(path, append=True)
        file.write('{"new": 1}')
        file.close()
        found = path.read_text().splitlines()
    assert found == [*whole, '{"new": 1}']


@given(_lines, st.integers(0, 800))
def test_a_full_disk_leaves_no_half_line(lines: list[str], size: int) -> None:
    """Lines that were accepted are there, the others are not, and none is cut; with free space it continues."""
    with _folder() as path:
        file = LineFile(path, append=False)
        taken = []
        with files_up_to(size):
            for line in lines:
                with suppress(OSError):
                    file.write(line)
                    taken.append(line)
            assert path.read_text() == "".join(f"{line}\n" for line in taken)
        file.write('{"back": 1}')
        file.close()
        assert path.read_text().splitlines() == [*taken, '{"back": 1}']


def test_what_is_not_ours_is_not_cut(tmp_path: Path) -> None:
    """A file that ends in something other than an incomplete object keeps it, and the next line starts on its own."""
    for end in ("notes without a newline", '{"whole": 1}'):
        path = tmp_path / "notes.txt"
        path.write_text(f"first\n{end}")
        file = LineFile(path, append=True)
        file.write('{"n": 1}')
        file.close()
        assert path.read_text() == f'first\n{end}\n{{"n": 1}}\n'


def test_a_rotation_that_fails_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a folder in place of the older file the lines go to the old one, with one warning; when it is gone, rotation
    continues."""
    path = tmp_path / "out.jsonl"
    obstacle = tmp_path / "out.jsonl.1"
    (obstacle / "full").mkdir(parents=True)
    file = LineFile(path, append=True, max_bytes=20, keep=1)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            file.write(f'{{"n": {number:8}}}')
    assert len(path.read_text().splitlines()) == 5
    assert len(caplog.records) == 1
    (obstacle / "full").rmdir()
    obstacle.rmdir()
    file.write('{"n": 5}')
    file.close()
    assert [json.loads(line)["n"] for line in _read(path)] == [0, 1, 2, 3, 4, 5]
    assert path.read_text() == '{"n": 5}\n'


def test_a_rotation_that_fails_half_way_loses_nothing(tmp_path: Path) -> None:
    """If no new file can be opened, nothing is renamed: readers of the name find the newest lines, and older files stay."""
    path = tmp_path / "out.jsonl"
    file = LineFile(path, append=True, max_bytes=10, keep=3)
    for number in range(3):
        file.write(f'{{"n": {number}}}')
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        for number in range(3, 9):
            file.write(f'{{"n": {number}}}')
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [2, *range(3, 9)]
    file.write('{"n": 9}')
    file.close()
    assert path.read_text() == '{"n": 9}\n'
    assert [json.loads(line)["n"] for line in _read(path)] == list(range(10))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("append", [False, True])
def test_a_file_that_another_process_writes_to_is_left_alone(tmp_path: Path, append: bool) -> None:
    """It is refused before anything is cut, also after a rotation; when the other has ended, it is free."""
    path = tmp_path / "out.jsonl"
    file = LineFile(path, append=True, max_bytes=20, keep=9)
    for number in range(3):
        file.write(f'{{"n": {number:8}}}')
        with pytest.raises(linefile.FileInUseError):
            LineFile(path, append=append)
    assert [json.loads(line)["n"] for line in _read(path)] == [0, 1, 2]
    file.close()
    LineFile(path, append=append).close()


def test_a_rotation_that_was_killed_leaves_nothing(tmp_path: Path) -> None:
    """The new file that was not yet renamed is removed by the next run."""
    path = tmp_path / "out.jsonl"
    (tmp_path / ".out.jsonl.new").touch()
    LineFile(path, append=True).close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_pipe_without_a_reader_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning; then every line arrives."""
    path, found = tmp_path / "pipe", list[str]()
    os.mkfifo(path)

    def read() -> None:
        while not caplog.records:
            time.sleep(0.005)
        found.append(path.read_text())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with caplog.at_level(logging.WARNING):
        file = LineFile(path, append=False)
    file.write("{}")
    file.close()
    reader.join(10)
    assert found == ["{}\n"]
    assert caplog.messages == [f"{path} is a pipe that nobody reads: waiting for a reader"]


def test_a_file_renamed_by_others_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After logrotate renames the file, or it is removed, lines go to a new file of the same name."""
    monkeypatch.setattr(linefile, "_EVERY_S", 0.0)
    path = tmp_path / "out.jsonl"
    file = LineFile(path, append=True)
    file.write('{"n": 0}')
    path.rename(tmp_path / "rotated")
    file.write('{"n": 1}')
    path.unlink()
    file.write('{"n": 2}')
    file.close()
    assert (tmp_path / "rotated").read_text() == '{"n": 0}\n'
    assert path.read_text() == '{"n": 2}\n'


@pytest.mark.parametrize(("sync", "count"), [("never", 0), ("interval", 1), ("always", 5)])
def test_when_lines_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Sync, count: int) -> None:
    """Never; once at the end for lines within a second; for each line."""
    forced = []
    real = os.fdatasync
    monkeypatch.setattr(linefile.os, "fdatasync", lambda fd: (forced.append(fd), real(fd)))
    file = LineFile(tmp_path / "out.jsonl", append=True, sync=sync)
    for number in range(5):
        file.write(f'{{"n": {number}}}')
    file.close()
    assert len(forced) == count


def test_the_interval_runs_while_no_line_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that waits to be synced is synced by the next tick that is due, and then not again."""
    file = LineFile(tmp_path / "out.jsonl", append=True, sync="interval")
    file.write('{"n": 0}')
    forced = []
    monkeypatch.setattr(linefile.os, "fdatasync", forced.append)
    file.tick()
    assert len(forced) == 0
    monkeypatch.setattr(linefile, "_EVERY_S", 0.0)
    file.tick()
    file.tick()
    assert len(forced) == 1
    file.close()


def test_a_killed_process_leaves_whole_lines(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves whole lines, except perhaps for the last one, which the next process cuts
    off."""
    path = tmp_path / "out.jsonl"
    code = (
        "import sys, itertools\nfrom pathlib import Path\nfrom edge_resnet.streaming.sinks.linefile import LineFile\n"
        "file = LineFile(Path(sys.argv[1]), append=True, max_bytes=20000, keep=10**6)\n"
        "for number in itertools.count():\n"
        '    file.write(\'{"n": %d, "x": "%s"}\' % (number, \'x\' * 300))\n'
        "    number == 200 and print('going', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait(20)
    child.stdout.close()
    LineFile(path, append=True).close()
    numbers = [json.loads(line)["n"] for part in _all(path) if part.exists() for line in part.read_text().splitlines()]
    assert len(numbers) > 200
    assert numbers == list(range(len(numbers)))


def test_a_closed_file_takes_nothing(tmp_path: Path) -> None:
    """After close a line is refused; closing again has no effect."""
    file = LineFile(tmp_path / "out.jsonl", append=True)
    file.close()
    file.close()
    with pytest.raises(OSError, match="closed"):
        file.write("{}")


def test_the_file_behind_a_link_is_rotated(tmp_path: Path) -> None:
    """A link stays, and all files are in the folder that it leads to."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out.jsonl"
    link.symlink_to(Path("disk") / "real.jsonl")
    file = LineFile(link, append=True, max_bytes=8)
    for number in range(3):
        file.write(f'{{"n": {number}}}')
    file.close()
    assert link.is_symlink()
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["real.jsonl", "real.jsonl.1", "real.jsonl.2"]
    assert _read(tmp_path / "disk" / "real.jsonl") == ['{"n": 0}', '{"n": 1}', '{"n": 2}']
