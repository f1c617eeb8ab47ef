"""What systemd receives, read from a real socket in its place."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edge_resnet.streaming.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end: a datagram socket at a path, which waits at most a second."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.settimeout(1)
        yield found


def _environment(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def test_each_call_is_one_datagram(manager: socket.socket) -> None:
    """The assignments are those of sd_notify(3), and each call returns that it was taken."""
    with Notifier(_environment(manager)) as notifier:
        taken = [notifier.ready(), notifier.watchdog(), notifier.status("2 cameras live"), notifier.stopping()]
    assert taken == [True] * 4
    assert [manager.recv(999) for _ in taken] == [b"READY=1", b"WATCHDOG=1", b"STATUS=2 cameras live", b"STOPPING=1"]


def test_a_state_may_bring_a_line(manager: socket.socket) -> None:
    """Ready and its status arrive together, so that systemctl never shows an older line."""
    with Notifier(_environment(manager)) as notifier:
        notifier.ready("on TensorRT")
    assert manager.recv(999) == b"READY=1\nSTATUS=on TensorRT"


def test_an_abstract_socket_is_found() -> None:
    """A name with @ is in the abstract namespace, which containers get."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind("")  # the kernel chooses an abstract name
        found.settimeout(1)
        name = found.getsockname().decode("ascii")
        with Notifier({"NOTIFY_SOCKET": name.replace("\0", "@", 1)}) as notifier:
            assert notifier.ready()
        assert found.recv(999) == b"READY=1"


@pytest.mark.parametrize("name", [None, "", "@", "relative", "vsock:2:1234"])
def test_without_a_manager_nothing_happens(name: str | None) -> None:
    """Without a socket, or with one of an unknown kind, every call returns False."""
    environment = {"WATCHDOG_USEC": "1000000"} | ({} if name is None else {"NOTIFY_SOCKET": name})
    with Notifier(environment) as notifier:
        assert not notifier.connected
        assert notifier.interval_s is None
        assert not any((notifier.ready(), notifier.watchdog(), notifier.status("text"), notifier.stopping()))


def test_the_environment_is_the_process_own_by_default(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under systemd nothing has to be passed."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    with Notifier() as notifier:
        assert notifier.connected
        assert notifier.ready()


def _interval_s(manager: socket.socket, **environment: str) -> float | None:
    with Notifier(_environment(manager, **environment)) as notifier:
        return notifier.interval_s


def test_the_interval_is_half_of_what_is_allowed(manager: socket.socket) -> None:
    """Half of WATCHDOG_USEC, in seconds."""
    assert _interval_s(manager, WATCHDOG_USEC="60000000") == 30.0
    assert _interval_s(manager, WATCHDOG_USEC="3", WATCHDOG_PID=str(os.getpid())) == 1.5e-6


@pytest.mark.parametrize("usec", ["", "0", "-1", "soon", "1.5", "²"])
def test_a_watchdog_of_no_length_is_none(manager: socket.socket, usec: str) -> None:
    """Anything but a positive whole number of microseconds means no watchdog."""
    assert _interval_s(manager, WATCHDOG_USEC=usec) is None


def test_another_process_watchdog_is_not_ours(manager: socket.socket) -> None:
    """A child inherits the variables, and WATCHDOG_PID says that they are for its parent."""
    assert _interval_s(manager, WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getppid())) is None


def test_text_cannot_say_more_than_text(manager: socket.socket) -> None:
    """A label with a line end stays one line: it cannot make the service ready."""
    with Notifier(_environment(manager)) as notifier:
        notifier.status("sees a cat\nREADY=1\r\n MAINPID=1 ")
    assert manager.recv(999) == b"STATUS=sees a cat READY=1 MAINPID=1"


def test_long_text_is_cut_between_letters(manager: socket.socket) -> None:
    """512 bytes at most, and still valid UTF-8."""
    with Notifier(_environment(manager)) as notifier:
        assert notifier.status("x" + "ä" * 9999)
    text = manager.recv(99999).decode("utf-8")
    assert text == "STATUS=x" + "ä" * 255


def test_text_that_is_no_unicode_is_sent_anyway(manager: socket.socket) -> None:
    """A file name with invalid bytes must not raise in the middle of a run."""
    with Notifier(_environment(manager)) as notifier:
        assert notifier.status("clip\udcff.mp4")
    assert manager.recv(999) == b"STATUS=clip?.mp4"


def test_a_manager_that_went_away_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No exception, False, and one line in the log however often it is tried."""
    with caplog.at_level(logging.WARNING), Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}) as notifier:
        assert not any(notifier.watchdog() for _ in range(5))
    assert len(caplog.records) == 1


def test_a_manager_that_does_not_read_blocks_nothing(manager: socket.socket) -> None:
    """If the socket is full the message is dropped at once."""
    with Notifier(_environment(manager)) as notifier:
        started = time.monotonic()
        taken = [notifier.status("x" * 500) for _ in range(5000)]
        assert not all(taken)
        assert time.monotonic() - started < 60


def test_ready_is_not_lost_in_a_full_socket(manager: socket.socket) -> None:
    """A state that did not arrive is sent with the next message: else systemd would wait until the start times out."""
    with Notifier(_environment(manager)) as notifier:
        while notifier.watchdog():
            pass
        assert not notifier.ready("late")
        waiting = _read_all(manager)
        assert set(waiting) == {b"WATCHDOG=1"}
        assert notifier.watchdog()
        assert manager.recv(999) == b"READY=1\nWATCHDOG=1"
        assert notifier.watchdog()
        assert manager.recv(999) == b"WATCHDOG=1"


def _read_all(manager: socket.socket) -> list[bytes]:
    manager.setblocking(False)
    read = []
    with suppress(BlockingIOError):
        while True:
            read.append(manager.recv(999))
    manager.settimeout(1)
    return read


def test_a_recreated_socket_is_found(tmp_path: Path) -> None:
    """systemd may restart itself: the same path, another socket."""
    path = tmp_path / "notify"
    with Notifier({"NOTIFY_SOCKET": str(path)}) as notifier:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
                found.bind(str(path))
                found.settimeout(1)
                assert notifier.watchdog()
                assert found.recv(999) == b"WATCHDOG=1"
            path.unlink()
            assert not notifier.watchdog()


def test_closing_twice_is_fine(manager: socket.socket) -> None:
    """Afterwards nothing is sent and nothing raises."""
    notifier = Notifier(_environment(manager))
    notifier.close()
    notifier.close()
    assert not notifier.ready()


def test_it_needs_nothing_but_the_standard_library() -> None:
    """Importing it loads only the standard library."""
    code = (
        "import sys, edge_resnet.streaming.notify as n\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'pydantic', 'typer', 'rich', 'cv2', 'systemd'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
