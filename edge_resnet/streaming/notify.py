"""Tells systemd how the service is: ready, alive, stopping, a line of text. Knows nothing of what the service does.

The protocol of sd_notify(3): datagrams to the socket that $NOTIFY_SOCKET names. Not under systemd, nothing is sent. Nothing here
raises, and nothing waits: a supervisor that does not listen must not stop the cameras.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from types import TracebackType

__all__ = ["Notifier"]

#: systemd reads at most a page; a status line is for a person.
_STATUS_BYTES = 512

_log = logging.getLogger(__name__)


class Notifier:
    """The line to the service manager; a context manager, for threads to share.

    ``interval_s``: seconds between two calls of ``watchdog``, half of what $WATCHDOG_USEC allows, as sd_watchdog_enabled(3)
    advises; None where nobody watches this process. Each call returns whether systemd took the message, False also where there is
    no systemd. ``environment``: for tests; it is read once.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.interval_s = _interval_s(environment) if self._address else None
        self._socket = _open() if self._address else None
        #: The last state that did not arrive: it goes along with the next message, or a start would never end.
        self._owed = ""
        self._refused = False

    @property
    def connected(self) -> bool:
        """Whether this process runs under a manager that wants to be told."""
        return self._socket is not None

    def ready(self, text: str = "") -> bool:
        """The service does its work from now on; with ``Type=notify`` systemd waits for this. ``text``: as for status."""
        return self._tell("READY=1", text)

    def stopping(self, text: str = "") -> bool:
        """The service has begun to end: what comes late now is no failure."""
        return self._tell("STOPPING=1", text)

    def watchdog(self) -> bool:
        """The service is alive. Call it where the work is done, so that it stays away when the work hangs."""
        return self._send("WATCHDOG=1")

    def status(self, text: str) -> bool:
        """A line that ``systemctl status`` shows. Line ends become spaces, and what is beyond 512 bytes is cut off."""
        return self._send(_status(text))

    def close(self) -> None:
        """Let go of the socket. May be called twice; messages after it are not sent."""
        found, self._socket = self._socket, None
        if found is not None:
            found.close()

    def __enter__(self) -> Notifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _tell(self, state: str, text: str) -> bool:
        self._owed = state
        return self._send(_status(text) if text else "")

    def _send(self, message: str) -> bool:
        found, owed = self._socket, self._owed
        if found is None:
            return False
        lines = "\n".join(line for line in (owed, message) if line)
        try:
            # Addressed each time, not connected once: the manager may have made its socket anew.
            found.sendto(lines.encode("utf-8"), self._address)
        except OSError as error:
            if not self._refused:
                self._refused = True
                _log.warning("systemd does not take messages (%s)", error.strerror or error)
            return False
        if self._owed == owed:
            self._owed = ""
        self._refused = False
        return True


def _address(name: str) -> str:
    """The address for sendto, empty where there is none: a path, or @ for a name in the abstract namespace (unix(7))."""
    if name.startswith("@") and len(name) > 1:
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _interval_s(environment: Mapping[str, str]) -> float | None:
    """Half of $WATCHDOG_USEC, where $WATCHDOG_PID is this process or absent."""
    watched = environment.get("WATCHDOG_PID", "")
    microseconds = environment.get("WATCHDOG_USEC", "")
    if watched and watched != str(os.getpid()):
        return None
    if not (microseconds.isascii() and microseconds.isdecimal()) or int(microseconds) == 0:
        return None
    return int(microseconds) / 2e6


def _open() -> socket.socket | None:
    try:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except (OSError, AttributeError) as error:  # no file left to open; no AF_UNIX on this system
        _log.warning("systemd cannot be told anything (%s)", error)
        return None
    found.setblocking(False)
    return found


def _status(text: str) -> str:
    """A line end would begin another assignment, so that a label could say READY=1."""
    line = " ".join(text.split()).encode("utf-8", "replace")[:_STATUS_BYTES].decode("utf-8", "ignore")
    return f"STATUS={line}"
