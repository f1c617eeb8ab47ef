"""Builds an engine in a child process, so that what kills the builder does not kill the caller. Knows no TensorRT."""

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

from edge_resnet.artifact.enginecache import EngineOptions, Typing
from edge_resnet.core import errors
from edge_resnet.core.errors import BuildError, EdgeResnetError
from edge_resnet.core.records import Progress

__all__ = ["Built", "build_in_child"]

_END_S = 10.0
#: A build takes seconds to tens of minutes; one that takes longer hangs, and on a device nobody is there to end it.
_LIMIT_S = 2 * 3600.0
_KEPT = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """``layers``: the engine inspector's JSON, or None. ``workspace_mib``: the limit the engine was built within, or None."""

    layers: str | None
    workspace_mib: int | None


def build_in_child(
    graph: Path,
    output: Path,
    options: EngineOptions,
    dialect: Typing,
    *,
    timings: Path | None = None,
    progress: Progress | None = None,
) -> Built:
    """Build the plan of an ONNX file into ``output``. Ctrl-C ends the child too.

    Raises what builder.build_plan raises; BuildError where the child was killed, as Linux does where memory runs out, crashed, or
    was not done after two hours.
    """
    request = {
        "graph": str(graph),
        "output": str(output),
        "options": asdict(options),
        "dialect": dialect,
        "timings": str(timings) if timings else "",
    }
    answer: dict[str, Any] = {}
    said: deque[str] = deque(maxlen=_KEPT)
    late = threading.Event()
    with _child(said) as child, _ended_when_late(child, late):
        try:
            json.dump(request, child.stdin)  # type: ignore[arg-type]
            child.stdin.close()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass  # it ended before it was asked: its exit code tells
        for line in child.stdout or ():
            answer = json.loads(line)
            if "progress" in answer and progress is not None:
                progress(*answer["progress"])
        code = child.wait()
    if late.is_set():
        raise BuildError(
            f"the engine's build was not done after {_LIMIT_S / 3600:g} hours",
            hint="compile --level 1 takes less; edge-resnet doctor",
        )
    if "error" in answer:
        raise _error(*answer["error"])
    if code or "plan" not in answer:
        raise _died(code, said)
    return Built(**answer["plan"])


@contextmanager
def _child(said: deque[str]) -> Iterator[subprocess.Popen[str]]:
    """The child, ended whatever happens; what it logs is passed on."""
    command = [sys.executable, "-m", "edge_resnet.compiler.tensorrt"]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace")
    listener = threading.Thread(target=_pass_on, args=(child.stderr, said), daemon=True)
    listener.start()
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
        listener.join(_END_S)
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


def _pass_on(stream: IO[str] | None, said: deque[str]) -> None:
    for line in stream or ():
        text = line.rstrip()
        said.append(text)
        level, _, message = text.partition(" ")
        number = logging.getLevelName(level)
        if isinstance(number, int):
            # The parent's error carries TensorRT's error lines already.
            _log.log(min(number, logging.WARNING), "%s", message)
        else:
            _log.debug("%s", text)


def _error(kind: str, message: str, hint: str) -> EdgeResnetError:
    found: type[EdgeResnetError] = getattr(errors, kind, BuildError)
    return found(message, hint=hint)


def _died(code: int, said: deque[str]) -> BuildError:
    last = next((line for line in reversed(said) if line.strip()), "it said nothing")
    if code == -signal.SIGKILL:
        return BuildError(
            "the engine's build was killed: most likely memory ran out",
            hint="close other programs (on a Jetson: sudo systemctl isolate multi-user.target), add swap, or lower --batch",
        )
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return BuildError(f"the engine's build crashed ({how}): {last}", hint="edge-resnet doctor; --debug shows TensorRT's log")
