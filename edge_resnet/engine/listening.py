"""TensorRT's log and its progress, as Python sees them. Knows nothing of graphs and plans.

Both classes derive from TensorRT's, as its C++ side demands, and are made on call: the progress monitor's base is missing below
10.
"""

from __future__ import annotations

import logging
from collections import deque
from types import ModuleType
from typing import Any

from edge_resnet.core.records import Progress

__all__ = ["Listener", "listen", "monitor"]

_KEPT = 5
_log = logging.getLogger(__name__)


class Listener:
    """``logger``: the object that TensorRT takes, to be kept as long as what was made with it. ``errors``: its last error
    lines."""

    def __init__(self, logger: Any, errors: deque[str]) -> None:
        self.logger = logger
        self.errors = errors

    def last(self) -> str:
        """The last error lines in one, for an error's message."""
        return "; ".join(self.errors) or "it said no reason"

    def ran_out_of_memory(self) -> bool:
        """Whether an error line says so."""
        text = " ".join(self.errors).lower().replace("_", "").replace(" ", "")
        return "outofmemory" in text or "insufficientmemory" in text or "insufficientworkspace" in text


def listen(trt: ModuleType) -> Listener:
    """A logger that passes TensorRT's lines on to ``logging`` and keeps the last five errors."""
    errors: deque[str] = deque(maxlen=_KEPT)
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
        severity.VERBOSE: logging.DEBUG,
    }

    class _Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.INFO)
            if level == logging.ERROR:
                errors.append(message.strip())
            _log.log(level, "TensorRT: %s", message.strip())

    return Listener(_Logger(), errors)


def monitor(trt: ModuleType, progress: Progress) -> Any | None:
    """An IProgressMonitor that tells the outermost phase's steps; None where TensorRT has none (below 10)."""
    if not hasattr(trt, "IProgressMonitor"):
        return None
    steps: dict[str, int] = {}

    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in steps:
                progress("build engine", min(step, steps[phase_name]), steps[phase_name])
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            steps.pop(phase_name, None)

    return _Monitor()
