"""Subprocesses with a time limit: whatever a child does, its caller goes on. Knows no command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Finished", "run_within"]


_KILL_S = 1.0


@dataclass(frozen=True)
class Finished:
    """A program that ended by itself. ``code``: its exit code, or minus the signal that ended it."""

    code: int
    stdout: str
    stderr: str


def run_within(command: Sequence[str], timeout_s: float) -> Finished | None:
    """Run a program in a session of its own; None where it gave no answer in time. Raises OSError where it cannot be started.

    One that hangs in the kernel, as a faulty driver makes it, cannot be killed: it is left behind a second later.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True)
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)
    return Finished(process.returncode, stdout, stderr)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
