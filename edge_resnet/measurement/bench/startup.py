"""What a new process needs until its first answer, and how much memory it takes. Knows no more of it than the line it prints.

The files have just been read when this is asked, so the disk's share is the page cache's. Python's start and imports are in it,
as they are for whoever starts the service; the command line's own imports are not.
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
    """``first_answer_ms``: median over the processes that were started. ``peak_mib``: the most memory that one took (VmHWM),
    None where the system does not tell."""

    first_answer_ms: float
    peak_mib: int | None


def measure_startup(folder: Path, backend: str, batch: int, times: int) -> Startup | None:
    """Start a process that opens the artifact, answers one image and then runs a few batches; that many times in turn.

    None where it fails or takes more than three minutes, with the reason in the log.
    """
    answers: list[_Answer] = []
    for _ in range(times):
        once = _once([sys.executable, "-m", "edge_resnet.measurement.bench", str(folder), backend, str(batch)])
        if once is None:
            return None
        answers.append(once)
    peaks = [answer.peak_mib for answer in answers if answer.peak_mib is not None]
    return Startup(median(answer.after_ms for answer in answers), max(peaks, default=None))


@dataclass(frozen=True)
class _Answer:
    after_ms: float
    peak_mib: int | None


def _once(command: list[str]) -> _Answer | None:
    started_ns = time.monotonic_ns()
    done = run_within(command, _TIMEOUT_S)
    if done is None:
        _log.warning("the process that measures the start gave no answer in %g s", _TIMEOUT_S)
        return None
    if done.code:
        _log.warning("the process that measures the start failed: %s", done.reason())
        return None
    answer = done.answer()
    # On Linux the monotonic clock is the system's, so that the times of two processes can be compared.
    return _Answer((answer["answered_ns"] - started_ns) / 1e6, answer["peak_mib"])
