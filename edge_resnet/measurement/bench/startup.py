"""What a new process needs until its first answer, and how much memory it takes. Knows no more of it than its two lines.

The files have just been read when this is asked, so the disk's share is the page cache's. Python's start and imports are in it,
as they are for whoever starts the service; the command line's own imports are not.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

__all__ = ["Startup", "measure_startup"]

_TIMEOUT_S = 180.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Startup:
    """``first_answer_ms``: median over the processes that were started. ``peak_mib``: the most memory that one took (VmHWM),
    None where the system does not tell."""

    first_answer_ms: float
    peak_mib: int | None


def measure_startup(folder: Path, backend: str, batch: int, times: int) -> Startup | None:
    """Start a process that opens the artifact, answers one image and then runs a few batches; that many times in turn.

    None where it fails or takes more than three minutes, with the reason in the log.
    """
    answers: list[float] = []
    peaks: list[int] = []
    for _ in range(times):
        once = _once([sys.executable, "-m", "edge_resnet.measurement.bench", str(folder), backend, str(batch)])
        if once is None:
            return None
        answers.append(once[0])
        peaks += [] if once[1] is None else [once[1]]
    return Startup(median(answers), max(peaks, default=None))


def _once(command: list[str]) -> tuple[float, int | None] | None:
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter_ns()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        late = threading.Timer(_TIMEOUT_S, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            answered_ms = (time.perf_counter_ns() - started) / 1e6
            second = process.stdout.readline()
            process.wait()
        finally:
            late.cancel()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if process.returncode == 0 and first and second:
            return answered_ms, json.loads(second)["peak_mib"]
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    _log.warning("a process of its own gave no answer: %s", said[-1] if said else f"exit code {process.returncode}")
    return None
