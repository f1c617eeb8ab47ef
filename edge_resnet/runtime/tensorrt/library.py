"""What the installed TensorRT offers, its log, and its progress. Detects features, and does not keep a list of versions.

Builds nothing and runs nothing.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from types import ModuleType
from typing import Any

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.core.records import Progress, Typing

__all__ = ["BuildLog", "log_to_python", "network_flags", "progress_monitor", "typing_of", "version_of"]

#: Weak typing is deprecated since 10.12 and removed in 11; strong typing is complete since 10.12 (NVIDIA's migration guide).
_STRONG_FROM = (10, 12)
_OLDEST = (8, 6)
#: Error lines that are kept for an error message.
_KEPT = 5
_log = logging.getLogger(__name__)


def version_of(trt: ModuleType) -> tuple[int, ...]:
    """(major, minor, patch …). Raises BackendError below 8.6, and for a module without a version."""
    text = str(getattr(trt, "__version__", ""))
    version = tuple(int(number) for number in re.findall(r"\d+", text)[:4])
    if not version:
        raise BackendError("the tensorrt package has no version", hint="pip install --force-reinstall tensorrt")
    if version < _OLDEST:
        raise BackendError(f"TensorRT {text} is too old: 8.6 or newer is needed", hint="JetPack 6.0 or newer includes it")
    return version


def typing_of(trt: ModuleType) -> Typing:
    """How this TensorRT learns a tensor's precision, which decides the graph and the flags that it gets."""
    version = version_of(trt)
    if not hasattr(trt.BuilderFlag, "FP16"):
        return "strong"
    return "strong" if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") and version >= _STRONG_FROM else "weak"


def network_flags(trt: ModuleType, typing: Typing) -> int:
    """The bits for ``create_network``: an explicit batch if this version has that flag, and strong typing if asked for.

    Raises ConfigError if this TensorRT does not support the typing.
    """
    flags = trt.NetworkDefinitionCreationFlag
    bits = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    if typing == "strong":
        if not hasattr(flags, "STRONGLY_TYPED"):
            raise ConfigError(f"TensorRT {trt.__version__} has no strong typing", hint="derive the weakly typed graph")
        bits |= 1 << int(flags.STRONGLY_TYPED)
    elif not hasattr(trt.BuilderFlag, "FP16"):
        raise ConfigError(f"TensorRT {trt.__version__} has no weak typing", hint="derive the strongly typed graph")
    return bits


class BuildLog:
    """TensorRT's log. ``logger``: the object that TensorRT takes; it must live as long as what was made with it. ``errors``: the
    last error lines."""

    def __init__(self, logger: Any, errors: deque[str]) -> None:
        self.logger = logger
        self.errors = errors

    def last(self) -> str:
        """The last error lines joined, for an error message."""
        return "; ".join(self.errors) or "no reason was logged"

    def ran_out_of_memory(self) -> bool:
        """Whether an error line reports that memory ran out."""
        text = " ".join(self.errors).lower().replace("_", "").replace(" ", "")
        return "outofmemory" in text or "insufficientmemory" in text or "insufficientworkspace" in text


def log_to_python(trt: ModuleType) -> BuildLog:
    """A logger that passes TensorRT's lines on to ``logging`` and keeps the last five error lines."""
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

    return BuildLog(_Logger(), errors)


def progress_monitor(trt: ModuleType, progress: Progress) -> Any | None:
    """An IProgressMonitor that reports the steps of the outermost phase; None below TensorRT 10, which has no such class."""
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
