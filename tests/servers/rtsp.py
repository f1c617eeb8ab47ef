"""An RTSP camera: GStreamer's server in a child of the system's Python, which can be killed, stalled and restarted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import cache
from pathlib import Path
from types import TracebackType

__all__ = ["PACKAGES", "RtspServer", "why_no_rtsp"]

PACKAGES = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
)
_PYTHON = "/usr/bin/python3"
_CHILD = Path(__file__).with_name("rtsp_child.py")


@cache
def why_no_rtsp() -> str:
    """Why the server cannot run here, empty if it can: the reason for skipping a test."""
    code = (
        "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer; Gst.init(None)\n"
        "assert all(Gst.ElementFactory.find(name) for name in ('x264enc', 'rtph264pay', 'videotestsrc', 'alawenc'))"
    )
    try:
        found = subprocess.run([_PYTHON, "-c", code], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        found = None
    return "" if found is not None and found.returncode == 0 else f"needs apt-get install {PACKAGES}"


class RtspServer:
    """Serves 320 x 240 at 30 frames per second at ``url("/h264")``, audio alone at ``url("/audio")``."""

    def __init__(self, *, login: tuple[str, str] | None = None, digest: bool = False) -> None:
        self.port = 0
        self._login, self._digest = login, digest
        self._child: subprocess.Popen[str] | None = None

    def url(self, path: str = "/h264", login: str = "") -> str:
        """The address of a path, with ``login`` (``user:password``) if given."""
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}{path}"

    def start(self) -> RtspServer:
        """Listen, on the previous port if there was one."""
        words = [*(self._login or ()), *(["digest"] if self._digest else [])]
        deadline = time.monotonic() + 20
        while True:
            self._child = subprocess.Popen(
                [_PYTHON, _CHILD, str(self.port), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self._child.stdout is not None
            line = self._child.stdout.readline()
            if line.strip():
                self.port = int(line)
                return self
            self.stop()
            assert time.monotonic() < deadline, "the RTSP server does not start"
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill the process: connections break."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(10)
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                pipe.close()
            self._child = None

    def restart(self) -> None:
        """Kill the process and listen again on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Suspend the process: connections stay, but carry nothing."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGCONT)

    def __enter__(self) -> RtspServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
