"""Whether edge-resnet in this container still makes predictions: its output must grow during the check.

Each prediction is a line on stdout or in a file, so a run without new output has lost its camera or hangs. Other commands
(compile, eval, doctor) are healthy while they run. Does not know what is written: warnings count too, and `run --headless`
without --jsonl writes nothing and is reported as unhealthy.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_PROGRAM = "edge-resnet"
#: A camera with longer intervals between frames needs a longer window.
_WINDOW_S = float(os.environ.get("EDGE_RESNET_HEALTH_WINDOW_S", "10"))
_PAUSE_S = 0.2


def check(proc: Path = Path("/proc")) -> str:
    """Observe for at most the length of the window; return why the container is unhealthy, or an empty string."""
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
        return f"{_PROGRAM} run ended, or cannot be observed: {error.strerror}"
    return f"{_PROGRAM} run wrote nothing in {_WINDOW_S:g} s"


def _find(proc: Path) -> tuple[Path, str] | None:
    """The oldest edge-resnet process and its command. An init process has the program in its arguments too, but further back."""
    for process in sorted((path for path in proc.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)):
        try:
            arguments = (process / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:  # it has ended since
            continue
        for position, argument in enumerate(arguments[:2]):
            if Path(argument).name == _PROGRAM:
                return process, next((word for word in arguments[position + 1 :] if word and not word.startswith("-")), "")
    return None


def _written(process: Path) -> int:
    """Bytes passed to write() since the process started (proc(5), io)."""
    fields = dict(line.split(": ") for line in (process / "io").read_text(encoding="ascii").splitlines())
    return int(fields["wchar"])


if __name__ == "__main__":
    sys.exit(check() or 0)
