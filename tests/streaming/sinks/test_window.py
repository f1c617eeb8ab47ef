"""The window: shown on a screen, ended by a key or by closing it, refused without a screen. The screen is Xvfb's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.sinks.window import WindowSink

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install opencv-python")

#: Writes frames from a thread, as a run does, until it is asked to stop or 20 seconds are over; tells of each window.
_RUN = """
import json, sys, threading, time
sys.path.insert(0, sys.argv[1])
from sinksamples import Seen, with_image, predicted
from edge_resnet.streaming.sinks.window import WindowSink
sources, frames = int(sys.argv[2]), int(sys.argv[3])
stops, done = [], []
def go():
    for number in range(frames):
        done.append(number)
        for source in range(sources):
            sink.write(predicted(number, Seen(source=f"camera:{source}")), with_image(number, height=240, width=320))
        if number == 3:
            print("shown", flush=True)
        if stops:
            break
        time.sleep(0.02)
    if stops:  # from then on frames are passed over: OpenCV is not even looked at
        kept, sink._cv2 = sink._cv2, None
        sink.write(predicted(number + 1), with_image())
        sink._cv2 = kept
    sink.close()
    sink.close()
with WindowSink(lambda: stops.append(1), per_source=sources > 1) as sink:
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
print(json.dumps({"frames": len(done), "stops": len(stops)}), flush=True)
"""

#: What a window manager sends when the user clicks the close button; this screen has none.
_CLOSE = """
import ctypes, sys
class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("sent", ctypes.c_int), ("display", ctypes.c_void_p),
                ("window", ctypes.c_ulong), ("kind", ctypes.c_ulong), ("format", ctypes.c_int), ("data", ctypes.c_long * 5),
                ("rest", ctypes.c_long * 24)]
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype, x.XInternAtom.restype = ctypes.c_void_p, ctypes.c_ulong
x.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
x.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
x.XFlush.argtypes = [ctypes.c_void_p]
display, window = x.XOpenDisplay(None), int(sys.argv[1])
message = Message(33, 0, 1, display, window, x.XInternAtom(display, b"WM_PROTOCOLS", 0), 32)
message.data[0] = x.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
x.XSendEvent(display, window, 0, 0, ctypes.byref(message))
x.XFlush(display)
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[dict[str, str]]:
    """The environment of a process that has a screen."""
    for command in ("Xvfb", "xdotool"):
        if shutil.which(command) is None:
            pytest.skip(f"no {command} here: apt install xvfb xdotool")
    if not cv2.currentUIFramework():
        pytest.skip("this OpenCV was built without windows")
    start, end = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(end), "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
        pass_fds=[end],
        stderr=subprocess.DEVNULL,
    )
    os.close(end)
    with os.fdopen(start) as numbers:
        number = numbers.readline().strip()
    try:
        assert number, "Xvfb did not start"
        yield {**os.environ, "DISPLAY": f":{number}"}
    finally:
        server.terminate()
        server.wait(20)


def _start(screen: dict[str, str], sources: int = 1, frames: int = 1000) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _RUN, str(Path(__file__).parent), str(sources), str(frames)]
    return subprocess.Popen(command, env=screen, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _ended(child: subprocess.Popen[str]) -> dict[str, int]:
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    result: dict[str, int] = json.loads(out.splitlines()[-1])
    return result


def _windows(screen: dict[str, str], name: str) -> list[str]:
    found = subprocess.run(["xdotool", "search", "--name", name], env=screen, capture_output=True, text=True, check=False)
    return found.stdout.split()


@pytest.mark.parametrize("key", ["q", "Escape", "close", "x"])
def test_what_ends_it(screen: dict[str, str], key: str) -> None:
    """q, Esc and the window's close button stop the run, once; another key does not."""
    child = _start(screen, frames=100 if key == "x" else 1000)
    assert child.stdout is not None
    assert child.stdout.readline() == "shown\n"
    (window,) = _windows(screen, "^edge-resnet$")
    if key == "close":
        subprocess.run([sys.executable, "-c", _CLOSE, window], env=screen, check=True)
    else:
        subprocess.run(["xdotool", "windowfocus", window, "key", key], env=screen, check=True)
    result = _ended(child)
    assert result["stops"] == (0 if key == "x" else 1)
    assert (result["frames"] == 100) if key == "x" else (result["frames"] < 900)


def test_a_window_per_source(screen: dict[str, str]) -> None:
    """Two sources have a window each, named after them."""
    child = _start(screen, sources=2, frames=60)
    assert child.stdout is not None
    assert child.stdout.readline() == "shown\n"
    assert [len(_windows(screen, f"^edge-resnet camera:{number}$")) for number in (0, 1)] == [1, 1]
    assert _ended(child)["frames"] == 60


@pytest.mark.parametrize("variable", ["", "DISPLAY", "WAYLAND_DISPLAY"])
def test_no_screen_is_one_line(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Without a screen, or with one that does not answer, where Qt would abort the process, there is an error with a hint."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if variable:
        monkeypatch.setenv(variable, ":65000")
    with pytest.raises(ConfigError, match=r"screen|without windows") as caught:
        WindowSink(lambda: None)
    assert "--web" in caught.value.hint
