"""The child process of ``process.build_in_child``: reads a request, builds, and answers in lines of JSON. Not for people."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from edge_resnet.artifact.enginecache import read_options
from edge_resnet.core.errors import EdgeResnetError, MissingDependencyError


def main() -> int:
    """Build what standard input asks for; the exit code is 0 where the last line is ``plan``."""
    # TensorRT's libraries may write to standard output: the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent ends us
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="%(levelname)s %(message)s")

    def answer(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    request = json.load(sys.stdin)
    try:
        answer(plan=_build(request, lambda stage, done, total: answer(progress=[stage, done, total])))
    except EdgeResnetError as error:
        answer(error=[type(error).__name__, error.message, error.hint])
        return 1
    return 0


def _build(request: dict[str, Any], progress: Any) -> dict[str, Any]:
    try:
        from edge_resnet.compiler.tensorrt import builder
    except ImportError as error:
        raise MissingDependencyError("TensorRT is not installed", hint="pip install 'edge-resnet[tensorrt]'") from error
    options = read_options(request["options"])
    timings = Path(request["timings"]) if request["timings"] else None
    plan = builder.build_plan(Path(request["graph"]), options, request["dialect"], timings, progress)
    output = Path(request["output"])
    output.write_bytes(plan.content)
    return {"layers": plan.layers, "workspace_mib": plan.workspace_mib}


if __name__ == "__main__":
    sys.exit(main())
