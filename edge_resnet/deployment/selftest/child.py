"""Runs a task of the self-test in a child process, and turns its end into a check if it crashes, hangs or ends early."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeAlias

from edge_resnet.core.process import answer_of, signal_name
from edge_resnet.deployment.selftest.check import Check
from edge_resnet.deployment.selftest.task import Task, as_json

__all__ = ["Running", "run_task"]

#: Called about once a second with the group, the name of the check that runs, and for how many seconds it has.
Running: TypeAlias = Callable[[str, str, float], None]

_TICK_S, _KILL_S = 1.0, 5.0
_WORKER = "edge_resnet.deployment.selftest.worker"
_REST = "; the checks after it were not made"


def run_task(task: Task, running: Running, limit_s: float) -> Iterator[Check]:
    """The checks of a task as they are made. The child never outlives the iteration.

    ``limit_s``: how long a single check may take.
    """
    name, complete = "start", False
    with tempfile.TemporaryFile() as stderr, _child(task, stderr) as child:
        for line in _lines(child):
            if isinstance(line, float):
                running(task.group, name, line)
                if line >= limit_s:
                    yield Check(task.group, name, "failed", f"no end after {line:.0f} s{_REST}")
                    return
                continue
            found = answer_of(line)
            if "running" in found:
                name = found["running"][1]
                running(task.group, name, 0.0)
            elif "check" in found:
                yield Check(**found["check"])
                name = f"after {found['check']['name']}"
            complete = complete or "done" in found
        if complete:
            return
        code = child.wait()
        stderr.seek(0)
        last = stderr.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
    how = f"crashed ({signal_name(-code)})" if code < 0 else f"ended with exit code {code}"
    detail = f"{how}: {last[:200]}" if last else how
    yield Check(task.group, name, "failed", f"{detail}{_REST}")


@contextmanager
def _child(task: Task, stderr: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The child in a session of its own, which is killed with all that it started when the block ends."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {_WORKER} import main; main({as_json(task)!r})"
    command = [sys.executable, "-c", code]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True)
    try:
        yield child
    finally:
        if child.poll() is None:
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                child.wait(_KILL_S)
        assert child.stdout is not None
        child.stdout.close()


def _lines(child: subprocess.Popen[Any]) -> Iterator[str | float]:
    """The lines of the child's output; while none comes, for how many seconds none has come, about once a second."""
    assert child.stdout is not None
    descriptor, rest, since = child.stdout.fileno(), b"", time.monotonic()
    while True:
        if not select.select([descriptor], [], [], _TICK_S)[0]:
            yield time.monotonic() - since
            continue
        block = os.read(descriptor, 1 << 16)
        if not block:
            return
        *whole, rest = (rest + block).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)
        since = time.monotonic()
