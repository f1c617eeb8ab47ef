"""Whether the container's edge-resnet still answers: what it has written grows while this looks.

A frame's answer is a line on stdout or in a file, so a run whose output stands still has lost its camera or hangs. Other
commands (compile, eval, doctor) are healthy while they are alive. Knows nothing of what is written: warnings count too, and
`run --headless` without --jsonl writes nothing and is called unhealthy.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_PROGRAM = "edge-resnet"
#: A camera that gives a frame more seldom than this needs a wider window.
_WINDOW_S = float(os.environ.get("EDGE_RESNET_HEALTH_WINDOW_S", "10"))
_PAUSE_S = 0.2


def check(proc: Path = Path("/proc")) -> str:
    """Look for up to the window's length; return why the container is not healthy, empty where it is."""
    found = _find(proc)
    if found is None:
        return f"no {_PROGRAM} is running"
    process, command = found
    if command != "run":
        return ""
    try:
        before = _written(process)
        end = time.monotonic() + _WINDOW_S
        while time.monotonic() < end:
            time.sleep(_PAUSE_S)
            if _written(process) > before:
                return ""
    except OSError as error:
        return f"{_PROGRAM} run ended, or may not be looked at: {error.strerror}"
    return f"{_PROGRAM} run wrote nothing in {_WINDOW_S:g} s"


def _find(proc: Path) -> tuple[Path, str] | None:
    """The oldest edge-resnet and its command; an init before it names the program too, but further along its line."""
    for process in sorted((path for path in proc.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)):
        try:
            words = (process / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:  # it ended between the listing and now
            continue
        for position, word in enumerate(words[:2]):
            if Path(word).name == _PROGRAM:
                return process, next((word for word in words[position + 1 :] if word and not word.startswith("-")), "")
    return None


def _written(process: Path) -> int:
    """Bytes handed to write() since the process began (proc(5), io)."""
    fields = dict(line.split(": ") for line in (process / "io").read_text(encoding="ascii").splitlines())
    return int(fields["wchar"])


if __name__ == "__main__":
    sys.exit(check() or 0)
