"""What the system grants a process: subprocesses with a time limit, and descriptors. Does not know any command."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["Finished", "answer_of", "descriptor_limit", "raise_descriptor_limit", "run_within", "signal_name"]

#: How long a killed process may take to end.
_KILL_S = 1.0
#: Files and sockets that a run may have open: more than any needs, and few enough for libraries that look at every number.
_DESCRIPTORS = 4096


@dataclass(frozen=True)
class Finished:
    """A program that ended by itself. ``code``: its exit code, or minus the signal that ended it."""

    code: int
    stdout: str
    stderr: str

    def answer(self) -> Any:
        """The JSON value in the last line of stdout. Raises ValueError if that line holds none."""
        return json.loads(_last_line(self.stdout))

    @property
    def crashed(self) -> bool:
        """Whether a signal ended it."""
        return self.code < 0

    def reason(self) -> str:
        """In one line why it failed: the signal that ended it and the last line of stderr, else the exit code."""
        last = _last_line(self.stderr)
        if self.crashed:
            return f"crashed ({signal_name(-self.code)})" + (f": {last}" if last else "")
        return last or f"ended with exit code {self.code} and no message"


def run_within(command: Sequence[str], timeout_s: float) -> Finished | None:
    """Run a program without input; None if it does not end in time. Raises OSError if it cannot be started.

    It gets a session of its own. If it is late or the caller is interrupted, the program and what it started are killed. One that
    hangs in the kernel, as a faulty driver can cause, cannot be killed: it is left behind a second later.
    """
    # Files, not pipes: a pipe stays open as long as any process that the program started.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return Finished(process.returncode, *texts)


def answer_of(line: str) -> dict[str, Any]:
    """The JSON object in one line of a child's standard output; empty for another text.

    Before a child can keep its output for itself, what the interpreter imports at its start, such as a ``sitecustomize``, may
    have printed there.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def signal_name(number: int) -> str:
    """The name of a signal, SIG and its number for a real-time signal that has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def descriptor_limit() -> int:
    """How many files and sockets this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to 4,096, or as far as the system permits, and return what it is now. Never lowers it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return descriptor_limit()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_S)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
