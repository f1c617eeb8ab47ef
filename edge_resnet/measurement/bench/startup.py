"""Times how long a new process takes to its first prediction, and how much memory it needs.

Files have just been read when this runs, so they come from the page cache. The time includes Python's start and imports, as it
does for a service, but not the imports of the command line.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from edge_resnet.core.process import run_within

__all__ = ["Startup", "measure_startup"]

_TIMEOUT_S = 180.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Startup:
    """``first_answer_ms``: median time to the first prediction over all processes. ``peak_mib``: the largest peak memory of a
    process (VmHWM), None where the system does not report it."""

    first_answer_ms: float
    peak_mib: int | None


def measure_startup(folder: Path, backend: str, batch: int, times: int) -> Startup | None:
    """Start a process that opens the artifact, classifies one image and runs a few batches, ``times`` times in turn.

    None if a process fails or takes more than three minutes; the reason is logged.
    """
    command = [sys.executable, "-m", "edge_resnet.measurement.bench", str(folder), backend, str(batch)]
    starts: list[Startup] = []
    for _ in range(times):
        start = _start_once(command)
        if start is None:
            return None
        starts.append(start)
    peaks = [start.peak_mib for start in starts if start.peak_mib is not None]
    return Startup(median(start.first_answer_ms for start in starts), max(peaks, default=None))


def _start_once(command: list[str]) -> Startup | None:
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter_ns()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        timeout = threading.Timer(_TIMEOUT_S, process.kill)
        timeout.start()
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            answered_ms = (time.perf_counter_ns() - started) / 1e6
            second = process.stdout.readline()
            process.wait()
        finally:
            timeout.cancel()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if process.returncode == 0 and first and second:
            return Startup(answered_ms, json.loads(second)["peak_mib"])
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    _log.warning("the cold start could not be measured: %s", lines[-1] if lines else f"exit code {process.returncode}")
    return None
