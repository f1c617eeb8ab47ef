"""Builds an engine in a child process, so that a crash of the builder does not end the caller. Does not load TensorRT."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.core import errors
from edge_resnet.core.errors import BuildError, EdgeResnetError
from edge_resnet.core.process import answer_of, signal_name
from edge_resnet.core.records import Progress

__all__ = ["Built", "build_in_child"]

_END_S = 10.0
#: A build takes seconds to tens of minutes; one that takes longer hangs, and on a device nobody is there to end it.
_LIMIT_S = 2 * 3600.0
#: Last lines of the child that are kept for the message of a crash.
_KEPT = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """``layers``: the engine inspector's JSON, or None. ``workspace_mib``: the limit that the engine was built with, or None."""

    layers: str | None
    workspace_mib: int | None


def build_in_child(request: PlanRequest, output: Path, progress: Progress | None = None) -> Built:
    """Build the plan into the file ``output``. Ctrl-C ends the child too.

    Raises what builder.build_plan raises, and BuildError if the child crashed, was killed (as Linux does when memory runs out),
    or was not done after two hours.
    """
    answer: dict[str, Any] = {}
    last_lines: deque[str] = deque(maxlen=_KEPT)
    late = threading.Event()
    with _child(last_lines) as child, _ended_when_late(child, late):
        try:
            json.dump(_as_json(request, output), child.stdin)  # type: ignore[arg-type]
            child.stdin.close()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass  # the child has ended already: its exit code says how
        for line in child.stdout or ():
            found = answer_of(line)
            if "log" in found:
                last_lines.append(found["log"]["text"])
                # At most a warning: the parent's error contains TensorRT's error lines already.
                _log.log(min(found["log"]["level"], logging.WARNING), "%s", found["log"]["text"])
            elif "progress" in found:
                if progress is not None:
                    progress(*found["progress"])
            elif found:
                answer = found
        code = child.wait()
    if late.is_set():
        raise BuildError(
            f"the engine's build was not done after {_LIMIT_S / 3600:g} hours",
            hint="edge-resnet compile --level 1 takes less time; edge-resnet doctor checks the GPU",
        )
    if "error" in answer:
        raise _error(*answer["error"])
    if code or "plan" not in answer:
        raise _died(code, last_lines)
    return Built(**answer["plan"])


def _as_json(request: PlanRequest, output: Path) -> dict[str, Any]:
    return {
        "graph": str(request.graph),
        "output": str(output),
        "options": asdict(request.options),
        "typing": request.typing,
        "timings": str(request.timings) if request.timings else "",
        "library": request.library,
        "targets": list(request.targets),
    }


@contextmanager
def _child(last_lines: deque[str]) -> Iterator[subprocess.Popen[str]]:
    """The child, which never outlives the block; its standard error goes to the log."""
    command = [sys.executable, "-m", "edge_resnet.compiler.tensorrt"]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace")
    reader = threading.Thread(target=_log_lines, args=(child.stderr, last_lines), daemon=True)
    reader.start()
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        reader.join(_END_S)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None and not stream.closed:
                stream.close()


@contextmanager
def _ended_when_late(child: subprocess.Popen[str], late: threading.Event) -> Iterator[None]:
    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(_LIMIT_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _log_lines(stream: IO[str] | None, last_lines: deque[str]) -> None:
    for line in stream or ():
        last_lines.append(line.rstrip())
        _log.debug("%s", line.rstrip())


def _error(kind: str, message: str, hint: str) -> EdgeResnetError:
    found: type[EdgeResnetError] = getattr(errors, kind, BuildError)
    return found(message, hint=hint)


def _died(code: int, last_lines: deque[str]) -> BuildError:
    last = next((line for line in reversed(last_lines) if line.strip()), "no output")
    if code == -signal.SIGKILL:
        return BuildError(
            "the engine's build was killed: most likely memory ran out",
            hint="close other programs (on a Jetson: sudo systemctl isolate multi-user.target), add swap, or use a smaller batch",
        )
    how = f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"
    return BuildError(f"the engine's build crashed ({how}): {last}", hint="edge-resnet doctor; --debug shows TensorRT's log")
