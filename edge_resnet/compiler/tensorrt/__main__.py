"""The child process of ``child.build_in_child``: reads a request, builds, and answers in lines of JSON. Not for the command line.

A line of standard output is an object with one key: ``log`` {level, text}, ``progress`` [stage, done, total], and last ``plan``
or ``error``. Standard error is left to libraries.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from edge_resnet.artifact.enginecache import read_options
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.builder import build_plan
from edge_resnet.core.errors import BuildError, EdgeResnetError
from edge_resnet.core.records import Progress


def main() -> int:
    """Build what standard input requests; the exit code is 0 if the last line is ``plan``."""
    # TensorRT's libraries may write to standard output: the answers get a descriptor of their own.
    answers = _Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends this one
    logging.basicConfig(handlers=[_LogToAnswers(answers)], level=logging.DEBUG)
    try:
        plan = _build(json.load(sys.stdin), lambda stage, done, total: answers.write(progress=[stage, done, total]))
        answers.write(plan=plan)
    except EdgeResnetError as error:
        answers.write(error=[type(error).__name__, error.message, error.hint])
        return 1
    return 0


class _Answers:
    """The lines to the parent, each written whole, from any thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, **line: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()


class _LogToAnswers(logging.Handler):
    def __init__(self, answers: _Answers) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        # TensorRT's own threads log too, and an exception that passes through them ends the process without a word. If nobody
        # reads the answers any more, the next report of progress cancels the build.
        with suppress(OSError):
            self._answers.write(log={"level": record.levelno, "text": record.getMessage()})


def _build(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    wanted = PlanRequest(
        Path(request["graph"]),
        read_options(request["options"]),
        request["typing"],
        Path(request["timings"]) if request["timings"] else None,
        request["library"],
        tuple(request["targets"]),
    )
    plan = build_plan(wanted, progress)
    try:
        Path(request["output"]).write_bytes(plan.content)
    except OSError as error:
        raise BuildError(f"cannot write the plan: {error.strerror}", hint="check the free disk space") from error
    return {"layers": plan.layers, "workspace_mib": plan.workspace_mib}


if __name__ == "__main__":
    sys.exit(main())
