"""What the TensorRT at hand takes, told by what it has and not by a list of versions. Constructs nothing of it."""

from __future__ import annotations

import logging
import re
from collections import deque
from types import ModuleType
from typing import Any

from edge_resnet.artifact.enginecache import Typing
from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.core.records import Progress

__all__ = ["BuildLog", "log_to_python", "network_flags", "progress_monitor", "typing_of", "version_of"]


#: Weak typing is deprecated from 10.12 on and gone in 11; strong typing is whole from 10.12 on (NVIDIA's migration guide).
_STRONG_FROM = (10, 12)
_OLDEST = (8, 6)


def version_of(trt: ModuleType) -> tuple[int, ...]:
    """(major, minor, patch …). Raises BackendError below 8.6, and for a module that says no version."""
    text = str(getattr(trt, "__version__", ""))
    version = tuple(int(number) for number in re.findall(r"\d+", text)[:4])
    if not version:
        raise BackendError("the tensorrt package says no version", hint="pip install --force-reinstall tensorrt")
    if version < _OLDEST:
        raise BackendError(f"TensorRT {text} is too old: 8.6 or newer is needed", hint="JetPack 6.0 or newer brings it")
    return version


def typing_of(trt: ModuleType) -> Typing:
    """Which graph and flags this TensorRT wants."""
    version = version_of(trt)
    if not hasattr(trt.BuilderFlag, "FP16"):
        return "strong"
    return "strong" if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") and version >= _STRONG_FROM else "weak"


def network_flags(trt: ModuleType, dialect: Typing) -> int:
    """The bits for ``create_network``: the batch is explicit where that is still said, and types are strong where asked for.

    Raises ConfigError where this TensorRT cannot do the dialect.
    """
    flags = trt.NetworkDefinitionCreationFlag
    bits = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    if dialect == "strong":
        if not hasattr(flags, "STRONGLY_TYPED"):
            raise ConfigError(f"TensorRT {trt.__version__} knows no strong typing", hint="compile the weak dialect")
        bits |= 1 << int(flags.STRONGLY_TYPED)
    elif not hasattr(trt.BuilderFlag, "FP16"):
        raise ConfigError(f"TensorRT {trt.__version__} knows no weak typing", hint="compile the strong dialect")
    return bits


_KEPT = 5


_log = logging.getLogger(__name__)


class BuildLog:
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


def log_to_python(trt: ModuleType) -> BuildLog:
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

    return BuildLog(_Logger(), errors)


def progress_monitor(trt: ModuleType, progress: Progress) -> Any | None:
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
