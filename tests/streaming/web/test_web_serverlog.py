"""What clients can cause in the log: one line a minute."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edge_resnet.streaming.web.serverlog import OncePerMinute, loop_errors


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def quiet() -> tuple[logging.Logger, _Lines, list[float]]:
    """A logger with the filter, what it wrote, and the time, which a test sets."""
    logger, lines, now = logging.Logger("quiet", logging.WARNING), _Lines(), [0.0]
    logger.addHandler(lines)
    logger.addFilter(OncePerMinute(logger, lambda: now[0]))
    return logger, lines, now


def test_a_flood_is_a_line_a_minute(quiet: tuple[logging.Logger, _Lines, list[float]]) -> None:
    """The next line has the number of those withheld; warnings do not hide an error."""
    logger, lines, now = quiet
    for _ in range(1000):
        logger.warning("Invalid %s request received.", "HTTP")
    logger.error("it failed")
    now[0] = 60.0
    logger.warning("again")
    assert lines.lines == [
        "web server: Invalid HTTP request received.",
        "web server: it failed",
        "web server: again (999 more messages since the last one)",
    ]


def test_an_exception_is_one_line(quiet: tuple[logging.Logger, _Lines, list[float]]) -> None:
    """Without its traceback, and without the control characters that a client may have sent."""
    logger, lines, _ = quiet
    try:
        raise ValueError("no \x1b[31mnumber\n" + "9" * 5000)
    except ValueError:
        logger.exception("Exception in ASGI application\n")
    (line,) = lines.lines
    assert line.startswith("web server: Exception in ASGI application: ValueError: no \\x1b[31mnumber\\n999")
    assert line.isprintable()
    assert len(line) < 250


def test_debugging_shows_everything(quiet: tuple[logging.Logger, _Lines, list[float]]) -> None:
    """Every message, and tracebacks."""
    logger, lines, _ = quiet
    logger.setLevel(logging.DEBUG)
    for _ in range(2):
        logger.error("failed", exc_info=ValueError("text"))
    assert len(lines.lines) == 2
    assert lines.lines[0].endswith("\nValueError: text")


def test_errors_of_the_event_loop_take_the_same_way(quiet: tuple[logging.Logger, _Lines, list[float]]) -> None:
    """A thousand failures to accept are one line."""
    logger, lines, _ = quiet
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(loop_errors(logger))
    for _ in range(1000):
        loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": OSError(24, "too many")})
    loop.close()
    assert lines.lines == ["web server: socket.accept() out of system resource: OSError: [Errno 24] too many"]
