"""The command against real servers on loopback that are killed and come back: it recovers, loses nothing, and does not grow."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from children import started
from servers.mjpeg import MjpegServer
from servers.rtsp import RtspServer, why_no_rtsp

from edge_resnet.artifact.folder import Artifact


class Running:
    """``edge-resnet run`` in a process, and the lines it has written."""

    def __init__(self, artifact: Path, out: Path, *arguments: str) -> None:
        self.out = out
        command = [sys.executable, "-m", "edge_resnet", "run", str(artifact), "--headless", "--jsonl", str(out), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def lines(self) -> list[str]:
        """Whole lines so far."""
        text = self.out.read_text(encoding="ascii") if self.out.exists() else ""
        return text.split("\n")[:-1]

    def until(self, held: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition while the process lives."""
        deadline = time.monotonic() + seconds
        while not held() and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.05)
        if not held():
            self.process.kill()
            raise AssertionError(self.process.communicate()[1])

    def more(self, count: int, seconds: float = 30) -> None:
        """Wait for so many more lines."""
        wanted = len(self.lines()) + count
        self.until(lambda: len(self.lines()) >= wanted, seconds)

    def memory_mib(self) -> float:
        """Resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def threads(self) -> int:
        """Threads of the process."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def end(self) -> str:
        """Send SIGTERM; returns stderr. Checks that the process exits within two seconds, with code 0."""
        self.process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        _, err = self.process.communicate(timeout=20)
        assert time.monotonic() - sent < 10
        assert self.process.returncode == 0, err
        return err


@contextmanager
def running(artifact: Artifact, out: Path, *arguments: str) -> Iterator[Running]:
    """A run that is ended in any case."""
    found = Running(artifact.folder, out, *arguments)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.communicate()


@pytest.fixture(params=["mjpeg", "rtsp"])
def camera(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """A server that can be stopped and restarted on its port, and its URI."""
    if request.param == "rtsp":
        if why_no_rtsp():
            pytest.skip(why_no_rtsp())
        with RtspServer() as server:
            yield server, f"{server.url()}?timeout=2"
    else:
        with MjpegServer(fps=30) as server:
            yield server, f"{server.url('/stream')}?timeout=2"


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_camera_that_is_killed_three_times(
    camera: tuple[Any, str], tiny_artifacts: dict[str, Artifact], tmp_path: Path, kills: int
) -> None:
    """It recovers each time; every prediction is in the file, once; memory and threads do not grow."""
    server, uri = camera
    with running(tiny_artifacts["int8"], tmp_path / "out.jsonl", "--source", uri) as run:
        run.more(20)
        kept: list[str] = run.lines()
        before: tuple[float, int] | None = None
        for _ in range(kills):
            server.stop()
            time.sleep(0.5)
            server.start()
            run.more(20)
            assert run.lines()[: len(kept)] == kept, "what was written stays"
            kept = run.lines()
            before = before or (run.memory_mib(), run.threads())
        assert run.memory_mib() - before[0] < 24
        assert run.threads() <= before[1] + 1
        log = run.end()
    rows = [json.loads(line) for line in run.lines()]
    numbers = [row["frame"] for row in rows]
    assert numbers == sorted(set(numbers))
    assert f"{len(rows)} frames in" in log
    assert f"{kills} reconnect" in log
    assert log.count("reopening it") >= kills


def test_a_camera_that_is_not_there_at_boot(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """With --keep-trying the run waits for it; without, it is an error at once."""
    with MjpegServer(fps=30) as server:
        uri = server.url("/stream")
        server.stop()
        with running(tiny_artifacts["int8"], tmp_path / "none.jsonl", "--source", uri) as run:
            assert run.process.wait(30) == 2
        with running(tiny_artifacts["int8"], tmp_path / "out.jsonl", "--source", uri, "--keep-trying") as run:
            time.sleep(2)
            assert run.process.poll() is None
            with socket.create_server(("127.0.0.1", urlsplit(uri).port or 0)) as listener:
                listener.settimeout(60)
                listener.accept()[0].close()  # on a busy machine the first attempt may come late
            server.start()
            run.more(10)
            assert "reopening it" in run.end()


def test_a_password_is_nowhere(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """Neither in the predictions nor in the messages when the camera goes away and comes back."""
    with MjpegServer(fps=30, login=("me", "s3cret")) as server:
        uri = server.url("/stream").replace("http://", "http://me:s3cret@")
        with running(tiny_artifacts["int8"], tmp_path / "out.jsonl", "--source", uri) as run:
            run.more(5)
            server.stop()
            time.sleep(0.5)
            server.start()
            run.more(5)
            log = run.end()
    assert "s3cret" not in log
    assert "s3cret" not in "".join(run.lines())


def test_two_cameras_on_one_engine(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """One of them stalls: the other continues, and the first comes back."""
    with MjpegServer(fps=30) as left, MjpegServer(fps=30) as right:
        arguments = ("--source", f"{left.url('/stream')}?timeout=2", "--source", f"{right.url('/stall')}?timeout=1")
        with running(tiny_artifacts["int8"], tmp_path / "out.jsonl", *arguments) as run:
            run.more(60, 60)
            run.until(lambda: len({json.loads(line)["source"] for line in run.lines()}) == 2, 20)
            log = run.end()
    assert "reconnect" in log


@pytest.mark.alone
def test_sigterm_with_readers_that_hang(tiny_artifacts: dict[str, Artifact]) -> None:
    """A decoder that never returns, in several threads at once, does not keep the process from ending within two seconds."""
    code = (
        "import os, time\nfrom edge_resnet import cli\nfrom edge_resnet.streaming.sources import live, mjpeg\n"
        "live._GRACE_S = 0.05\nmjpeg._decode = lambda body, max_pixels: (os.write(1, b'hangs\\n'), time.sleep(60))\n"
        "cli.main()\n"
    )
    with MjpegServer(fps=30) as server:
        cameras = [f"--source={server.url('/stream')}?timeout={timeout}" for timeout in (0.1, 5)]
        command = [sys.executable, "-c", code, "run", str(tiny_artifacts["int8"].folder), "--headless", "--keep-trying", *cameras]
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(4):
                assert process.stdout.readline() == "hangs\n"
            process.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert time.monotonic() - sent < 2
    assert "(interrupted)" in err
