"""HOST:PORT → a listening socket, or a clear error. Does not know about HTTP."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass

from edge_resnet.core.errors import ConfigError

__all__ = ["Address", "listen", "resolve"]

_EXAMPLE = "for example 127.0.0.1:8080, or [::1]:8080"
#: The kernel's send buffer of one client: a slow client lags by a few frames, not by megabytes of them.
_SEND_BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True)
class Address:
    """``host`` as given, ``port`` 0 to 65535; ``family`` and ``ip`` are what it resolved to."""

    host: str
    port: int
    family: socket.AddressFamily
    ip: str

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.ip.partition("%")[0]).is_loopback

    def url(self, port: int) -> str:
        """The URL for a browser, with the port that was bound."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/"


def resolve(text: str) -> Address:
    """Parse and resolve HOST:PORT; port 0 is any free one. Raises ConfigError if it is malformed or the host is unknown."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]/@]+)):([0-9]{1,5})", text)
    if match is None:
        raise ConfigError(f"{text!r} is not HOST:PORT", hint=_EXAMPLE)
    host, port = match.group(1) or match.group(2), int(match.group(3))
    if port > 65535:
        raise ConfigError(f"there is no port {port}", hint="ports go from 1 to 65535; 0 takes any free one")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the host {host} cannot be resolved", hint=_EXAMPLE) from error
    # If a name has both, the client will most likely try IPv4.
    family, _, _, _, sockaddr = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return Address(host, port, family, str(sockaddr[0]))


def listen(address: Address) -> socket.socket:
    """Bind and listen. Raises ConfigError if the port is taken or not permitted, or the address is not this machine's."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        # Else the port of a run that just ended stays unusable for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        sock.bind((address.ip, address.port))
        sock.listen(64)
    except OSError as error:
        sock.close()
        raise _refusal(address, error) from error
    return sock


def _refusal(address: Address, error: OSError) -> ConfigError:
    host, port = address.host, address.port
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} on {host} is in use by another program", hint="choose another port, or 0 for any free one"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(f"port {port} on {host} cannot be opened: permission denied", hint="choose a port from 1024 on")
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"{host} is not an address of this machine", hint="127.0.0.1 for this machine alone, 0.0.0.0 for all")
    return ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", hint=_EXAMPLE)
