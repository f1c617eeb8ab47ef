"""TensorRT's log: passed on to ``logging``, with what a failure needs kept beside it. Loads no TensorRT, and builds nothing.

TensorRT keeps the first logger of a process and ignores later ones: there is one for each library, for as long as the process
lives.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections import Counter, deque
from types import ModuleType
from typing import Any

__all__ = ["BuildLog", "log_to_python"]

#: Error lines, and warnings about memory, that are kept for an error message.
_KEPT = 5
#: Kinds of warnings that are counted separately; further kinds are counted together.
_KINDS = 100
_OTHERS = "there were warnings of more kinds: --debug shows them"
#: The log's message that lists the layers of a plan, where the profiling verbosity is DETAILED.
_LISTING = "Layers:\n"
#: How TensorRT 8.6 to 11 say that memory ran out, without blanks and underscores. "insuficient" is the spelling up to 8.6.
_OUT_OF_MEMORY = re.compile(r"outofmemory|insuff?icient(memory|workspace)|memoryisinsufficient|memory.*couldnotbeallocated")
#: The error after tactics were skipped: it says that none is left, and not why.
_NO_TACTIC = "couldnotfindanyimplementation"
_NO_CUDA = "CUDA initialization failure"
#: Lines that TensorRT for RTX logs as errors on a machine without a driver, where it builds all the same.
_NO_FAULT = re.compile(r"Thread context has not been set|catchCudaError.*cudaError 35")
_log = logging.getLogger(__name__)


class BuildLog:
    """TensorRT's log since the last ``begin``. ``logger``: the object that TensorRT takes. ``errors``: the last error lines.

    ``layers``: the listing of the plan's layers as TensorRT wrote it, empty if it wrote none.
    """

    def __init__(self) -> None:
        self.logger: Any = None
        self.errors: deque[str] = deque(maxlen=_KEPT)
        self.layers = ""
        self._memory: deque[str] = deque(maxlen=_KEPT)
        #: Kind of a warning → its first text, and how often that kind occurred.
        self._told: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._building = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Forget what was kept, before a build: its warnings are told at its end."""
        with self._lock:
            self._building = True
            self.errors.clear()
            self._memory.clear()
            self._told.clear()
            self._counts.clear()
            self.layers = ""

    def end(self) -> None:
        """Log each kind of warning once, with the number of those that the build gave."""
        with self._lock:
            self._building = False
            warnings = [(self._told[kind], count) for kind, count in self._counts.items()]
            self._told.clear()
            self._counts.clear()
        for text, count in warnings:
            _emit(logging.WARNING, text if count == 1 else f"{text} ({count} warnings of this kind)")

    def last(self) -> str:
        """The last error lines joined, for an error message."""
        return "; ".join(self.errors) or "no reason was logged"

    def out_of_memory(self) -> str | None:
        """The line that says that memory ran out, None if it was not the reason of a failure.

        A warning about a tactic that needs too much is ordinary in a build that succeeds: it counts where an error says that no
        tactic is left. So does a warning about memory that could not be allocated.
        """
        found = next((line for line in self.errors if _OUT_OF_MEMORY.search(_squeezed(line))), None)
        if found is not None or not self.errors or not self._memory:
            return found
        if any(_NO_TACTIC in _squeezed(line) for line in self.errors):
            return self._memory[-1]
        return next((line for line in reversed(self._memory) if "couldnotbeallocated" in _squeezed(line)), None)

    def take(self, level: int, message: str) -> None:
        """One message of TensorRT, at a level of ``logging``; called from any thread."""
        text = message.strip()
        if level == logging.ERROR and _NO_FAULT.search(text):
            level = logging.DEBUG
        with self._lock:
            if level == logging.ERROR:
                self.errors.append(" ".join(text.split()))
            elif level == logging.WARNING:
                if _NO_CUDA in text:  # the reason of the failure that follows, which itself gives none
                    self.errors.append(" ".join(text.split()))
                if _OUT_OF_MEMORY.search(_squeezed(text)):
                    self._memory.append(" ".join(text.split()))
                level = self._level_of_warning(text)
            elif text.startswith(_LISTING):
                self.layers = text
        _emit(level, text)

    def _level_of_warning(self, text: str) -> int:
        """The first warning of a kind is one, but during a build; later ones are counted. Other numbers are not another kind."""
        kind = re.sub(r"0x[0-9a-f]+|\d+", "#", text)
        if kind not in self._told and len(self._told) >= _KINDS:
            kind, text = _OTHERS, _OTHERS
        self._told.setdefault(kind, text)
        self._counts[kind] += 1
        return logging.WARNING if self._counts[kind] == 1 and not self._building else logging.DEBUG


@functools.cache
def log_to_python(trt: ModuleType) -> BuildLog:
    """The log of this TensorRT, the same for every call: TensorRT itself keeps the first logger that it is given."""
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
        severity.VERBOSE: logging.DEBUG,
    }
    log = BuildLog()

    class _Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.take(levels.get(severity, logging.INFO), message)

    log.logger = _Logger()
    return log


def _emit(level: int, text: str) -> None:
    """Log a message, each of its lines with its level and origin."""
    for line in text.split("\n"):
        _log.log(level, "TensorRT: %s", line)


def _squeezed(text: str) -> str:
    return re.sub(r"[\s_]+", "", text.lower())
