"""The record of one check, and how a check says that it failed or could not be made. Does not know what is checked."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

from edge_resnet.core.errors import EdgeResnetError

__all__ = ["Check", "Desk", "Figures", "Finding", "NotHereError", "Status", "WrongResultError", "warnings_heard"]

Status: TypeAlias = Literal["ok", "failed", "not here"]
#: What was measured, by name with its unit: ``p50_ms``.
Figures: TypeAlias = Mapping[str, float | int | str | None]


@dataclass(frozen=True)
class Check:
    """The result of one check.

    ``group``: the machine, or a backend and its network. ``detail``: what was found, or why it failed or is not here.
    ``local``: what the screen shows and a report does not hold, such as a camera's name. ``seconds``: how long it took.
    """

    group: str
    name: str
    status: Status
    detail: str
    figures: Figures = field(default_factory=dict)
    local: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Finding:
    """What a check that passed found: ``detail``, ``figures`` and ``local`` as in ``Check``."""

    detail: str
    figures: Figures = field(default_factory=dict)
    local: str = ""


class NotHereError(Exception):
    """The check cannot be made on this machine: the text says why, and what would bring it."""


class WrongResultError(Exception):
    """The check was made and failed: the text says how. ``figures``: as in ``Check``."""

    def __init__(self, message: str, figures: Figures | None = None) -> None:
        super().__init__(message)
        self.figures = figures or {}


class Desk:
    """Makes the checks of one group, one after another, and tells each: first that it begins, then its result.

    ``tell``: takes a line of JSON. ``clock``: seconds.
    """

    def __init__(self, group: str, tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._group, self._tell, self._clock = group, tell, clock

    def check(self, name: str, call: Callable[[], Finding]) -> bool:
        """Make one check and tell its result. Returns whether it passed; only Ctrl-C and its like are raised."""
        self._tell(json.dumps({"running": [self._group, name]}))
        started = self._clock()
        figures: Figures = {}
        local, status = "", "failed"
        try:
            found = call()
            status, detail, figures, local = "ok", found.detail, found.figures, found.local
        except NotHereError as error:
            status, detail = "not here", str(error)
        except WrongResultError as error:
            detail, figures = str(error), error.figures
        except EdgeResnetError as error:
            detail = f"{error.message} ({error.hint})" if error.hint else error.message
        except Exception as error:  # a broken library may raise anything
            detail = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        self._say(Check(self._group, name, status, detail, figures, local, self._clock() - started))  # type: ignore[arg-type]
        return status == "ok"

    def absent(self, name: str, reason: str) -> None:
        """Tell of a check that cannot be made here."""
        self._say(Check(self._group, name, "not here", reason))

    def _say(self, check: Check) -> None:
        self._tell(json.dumps({"check": asdict(check)}))


@contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """Collect the warnings that this package logs in the block, as text."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("edge_resnet")
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
