"""How far a build is, from TensorRT's phases. Loads no TensorRT.

Phases are nested, and nearly all of the time passes in nested ones: a phase's share is its finished steps, with the share of the
open phase below it, over its steps. Steps are numbered from 0, and the last one of a phase need not come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from edge_resnet.core.records import Progress

__all__ = ["BuildMonitor", "PhaseShares"]

_STAGE = "build engine"
_PERCENT = 100


class PhaseShares:
    """The share of a build that is finished, 0 to 1, from its phases; it never decreases."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._reached = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, within another one unless it is outermost."""
        self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, index: int) -> None:
        """Step ``index`` of a phase is finished, counted from 0."""
        if name in self._phases:
            phase = self._phases[name]
            phase.done = max(phase.done, min(index + 1, phase.steps))

    def finish(self, name: str) -> None:
        """A phase has ended, and those within it; the build has ended with the outermost one."""
        phase = self._phases.pop(name, None)
        if phase is None:
            return
        for inner in [inner for inner, found in self._phases.items() if found.parent == name]:
            self.finish(inner)
        if phase.parent is None:
            self._reached = 1.0

    @property
    def share(self) -> float:
        """Of the whole build."""
        outermost = [name for name, phase in self._phases.items() if phase.parent is None]
        self._reached = max(self._reached, *(self._share(name) for name in outermost), 0.0)
        return self._reached

    def _share(self, name: str) -> float:
        phase = self._phases[name]
        below = max((self._share(inner) for inner, found in self._phases.items() if found.parent == name), default=0.0)
        return min((phase.done + below) / phase.steps, 1.0)


class _Phase:
    def __init__(self, parent: str | None, steps: int) -> None:
        self.parent, self.steps, self.done = parent, steps, 0


class BuildMonitor:
    """Reports a build in percent, and cancels it where ``progress`` raises: an exception must not pass through TensorRT.

    ``monitor``: the IProgressMonitor, None below TensorRT 10, which has no such class. ``failure``: what ``progress`` raised.
    """

    def __init__(self, trt: ModuleType, progress: Progress) -> None:
        self.failure: BaseException | None = None
        self.monitor: Any = None
        self._progress = progress
        self._shares, self._lock, self._reported = PhaseShares(), threading.Lock(), -1
        if hasattr(trt, "IProgressMonitor"):
            self.monitor = self._made(trt)

    def _made(self, trt: ModuleType) -> Any:
        told, shares = self._told, self._shares

        class _Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                told(lambda: shares.start(phase_name, parent_phase, num_steps))

            def step_complete(self, phase_name: str, step: int) -> bool:
                return told(lambda: shares.step(phase_name, step))  # False cancels the build

            def phase_finish(self, phase_name: str) -> None:
                told(lambda: shares.finish(phase_name))

        return _Monitor()

    def _told(self, what: Callable[[], None]) -> bool:
        """Take one call of TensorRT, from any of its threads; whether the build goes on."""
        with self._lock:
            what()
            percent = int(self._shares.share * _PERCENT)
            if percent > self._reported and self.failure is None:
                self._reported = percent
                try:
                    self._progress(_STAGE, percent, _PERCENT)
                except BaseException as error:
                    self.failure = error
            return self.failure is None
