"""Reports the state of the service to systemd: ready, alive, stopping, a line of text. Does not know what the service does.

The protocol of sd_notify(3): datagrams to the socket named by $NOTIFY_SOCKET. Without systemd nothing is sent. Nothing here
raises or waits: a service manager that does not listen must not stop the cameras.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from types import TracebackType

__all__ = ["Notifier"]

#: systemd reads at most a page; a status line should be much shorter.
_STATUS_BYTES = 512

_log = logging.getLogger(__name__)


class Notifier:
    """The connection to the service manager; a context manager, which threads may share.

    ``interval_s``: seconds between two calls of ``watchdog``, half of $WATCHDOG_USEC as sd_watchdog_enabled(3) advises; None if
    no watchdog is set. Each call returns whether systemd took the message; without systemd that is False. ``environment``: for
    tests; it is read once.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.interval_s = _interval_s(environment) if self._address else None
        self._socket = _open() if self._address else None
        #: The last state that did not arrive. It is sent again with the next message: else systemd would wait for the start
        #: forever.
        self._unsent = ""
        self._refused = False

    @property
    def connected(self) -> bool:
        """Whether this process runs under a service manager that takes messages."""
        return self._socket is not None

    def ready(self, text: str = "") -> bool:
        """The service has started; with ``Type=notify`` systemd waits for this. ``text``: as for ``status``."""
        return self._send_state("READY=1", text)

    def stopping(self, text: str = "") -> bool:
        """The service is about to end, so that systemd does not take this for a failure."""
        return self._send_state("STOPPING=1", text)

    def watchdog(self) -> bool:
        """The service is alive. Call it from the thread that does the work, so that the calls stop when the work hangs."""
        return self._send("WATCHDOG=1")

    def status(self, text: str) -> bool:
        """A line that ``systemctl status`` shows. Line ends become spaces, and the text is cut off after 512 bytes."""
        return self._send(_status(text))

    def close(self) -> None:
        """Close the socket. May be called twice; later messages are not sent."""
        found, self._socket = self._socket, None
        if found is not None:
            found.close()

    def __enter__(self) -> Notifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _send_state(self, state: str, text: str) -> bool:
        self._unsent = state
        return self._send(_status(text) if text else "")

    def _send(self, message: str) -> bool:
        found, unsent = self._socket, self._unsent
        if found is None:
            return False
        lines = "\n".join(line for line in (unsent, message) if line)
        try:
            # Addressed each time instead of connected once: the manager may have recreated its socket.
            found.sendto(lines.encode("utf-8"), self._address)
        except OSError as error:
            if not self._refused:
                self._refused = True
                _log.warning("systemd does not take messages (%s)", error.strerror or error)
            return False
        if self._unsent == unsent:
            self._unsent = ""
        self._refused = False
        return True


def _address(name: str) -> str:
    """The address for sendto, empty if there is none: a path, or @ and a name in the abstract namespace (unix(7))."""
    if name.startswith("@") and len(name) > 1:
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _interval_s(environment: Mapping[str, str]) -> float | None:
    """Half of $WATCHDOG_USEC if $WATCHDOG_PID is this process or not set, else None."""
    pid = environment.get("WATCHDOG_PID", "")
    microseconds = environment.get("WATCHDOG_USEC", "")
    if pid and pid != str(os.getpid()):
        return None
    if not (microseconds.isascii() and microseconds.isdecimal()) or int(microseconds) == 0:
        return None
    return int(microseconds) / 2e6


def _open() -> socket.socket | None:
    try:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except (OSError, AttributeError) as error:  # too many open files; no AF_UNIX on this system
        _log.warning("messages cannot be sent to systemd (%s)", error)
        return None
    found.setblocking(False)
    return found


def _status(text: str) -> str:
    """The status as an assignment. A line end would begin another one, so that a label could set READY=1."""
    line = " ".join(text.split()).encode("utf-8", "replace")[:_STATUS_BYTES].decode("utf-8", "ignore")
    return f"STATUS={line}"
