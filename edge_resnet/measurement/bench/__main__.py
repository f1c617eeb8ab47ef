"""The child process of ``startup``: opens an artifact, answers one image, runs a few batches. Not for people."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

from edge_resnet.artifact.folder import open_artifact
from edge_resnet.runtime.backend import open_backend

#: Batches after the first answer: buffers and graphs have their full size then.
_BATCHES = 5


def main() -> int:
    """Arguments: folder, backend, batch. Prints one line of JSON: when the first answer was there, and the peak of memory."""
    # Libraries may write to standard output: the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    folder, backend, batch = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    artifact = open_artifact(folder)
    size = artifact.manifest.model.input_size
    with open_backend(artifact, backend) as network:
        network.infer(np.zeros((1, size, size, 3), np.uint8))
        answered_ns = time.monotonic_ns()
        for _ in range(_BATCHES):
            network.infer(np.zeros((batch, size, size, 3), np.uint8))
        answers.write(json.dumps({"answered_ns": answered_ns, "peak_mib": _peak_mib()}) + "\n")
        answers.flush()
    return 0


def _peak_mib() -> int | None:
    """The most memory that this process had at once (proc(5), VmHWM)."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) // 1024 if found else None


if __name__ == "__main__":
    sys.exit(main())
