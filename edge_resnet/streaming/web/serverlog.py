"""Log messages that clients can cause: one line each, at most one a minute of each level. Knows neither server nor routes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from edge_resnet.core.text import printable

__all__ = ["OncePerMinute", "loop_errors"]

_EVERY_S = 60.0
_MAX_LENGTH = 200


class OncePerMinute(logging.Filter):
    """Lets one record of each level pass per minute, with the number of those withheld, and without a traceback unless debugging.

    Warnings and errors are counted apart, so that what a client sends never hides what fails here.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._logger = logger
        self._clock = clock
        self._passed_s: dict[int, float] = {}
        self._withheld: dict[int, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; it is shortened to one line."""
        if record.levelno < logging.WARNING or self._logger.isEnabledFor(logging.DEBUG):
            return True
        level, now = record.levelno, self._clock()
        if now - self._passed_s.get(level, -_EVERY_S) < _EVERY_S:
            self._withheld[level] = self._withheld.get(level, 0) + 1
            return False
        self._passed_s[level] = now
        withheld = self._withheld.pop(level, 0)
        text = record.getMessage().strip()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        text = printable(text[:_MAX_LENGTH])[:_MAX_LENGTH]
        record.msg = f"web server: {text}" + (f" ({withheld} more messages since the last one)" if withheld else "")
        record.args, record.exc_info, record.exc_text = (), None, None
        return True


def loop_errors(logger: logging.Logger) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """An exception handler for an event loop: logs what its own would, as one message."""

    def log(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001 - the loop's signature
        error = context.get("exception")
        logger.error("%s", context.get("message", "error in the event loop"), exc_info=error)

    return log
