"""The access token: comparing it, the cookie for a browser, a limit on wrong attempts. Knows no HTTP and loads no server."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from edge_resnet.core.errors import ConfigError

__all__ = ["COOKIE_S", "Attempts", "Token", "network"]

#: How long a browser stays signed in.
COOKIE_S = 7 * 24 * 3600
#: Guesses are answered as fast as they come, so the token must be too long to be guessed.
_MIN_LENGTH = 16
_HINT = 'make one with: python3 -c "import secrets; print(secrets.token_urlsafe())"'


class Token:
    """A token that clients must send. Raises ConfigError if it is too short, or a header cannot contain it."""

    def __init__(self, secret: str) -> None:
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ConfigError("the web token contains characters that an HTTP header cannot contain", hint=_HINT)
        if len(secret) < _MIN_LENGTH:
            raise ConfigError(f"the web token has only {len(secret)} characters and could be guessed", hint=_HINT)
        self._key = secret.encode()

    def matches(self, candidate: str) -> bool:
        """Compare in a time that depends neither on how much is right nor on the length."""
        return hmac.compare_digest(_digest(candidate.encode("utf-8", "replace")), _digest(self._key))

    def cookie(self) -> str:
        """A cookie for a browser: not the token itself, valid for a week, also after a restart of the server."""
        until = int(time.time()) + COOKIE_S
        return f"{until}.{self._sign(str(until))}"

    def signed(self, cookie: str) -> bool:
        """Whether this server signed the cookie and it has not expired."""
        until, _, signature = cookie.partition(".")
        if not (until.isascii() and until.isdecimal() and len(until) < 16):
            return False
        right = hmac.compare_digest(_digest(signature.encode("utf-8", "replace")), _digest(self._sign(until).encode()))
        return right and int(until) > time.time()

    def _sign(self, until: str) -> str:
        return hmac.new(self._key, f"edge-resnet web until {until}".encode(), hashlib.sha256).hexdigest()


class Attempts:
    """Wrong tokens per address: after ten within a minute further wrong ones are told to wait. Keeps the last 1,024 addresses.

    The right token is accepted all the same: behind a proxy all clients have one address, and one of them must not lock out the
    others.
    """

    LIMIT = 10
    WAIT_S = 60.0
    REMEMBERED = 1024

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds that the address must still wait, or 0."""
        count, last_s = self._wrong.get(network(address), (0, 0.0))
        left = last_s + self.WAIT_S - self._clock()
        return max(0.0, left) if count >= self.LIMIT else 0.0

    def wrong(self, address: str) -> None:
        """Count one more wrong token."""
        key, now = network(address), self._clock()
        count, last_s = self._wrong.pop(key, (0, now))
        self._wrong[key] = (1 if now - last_s >= self.WAIT_S else count + 1, now)
        if len(self._wrong) > self.REMEMBERED:
            self._wrong.popitem(last=False)

    def __len__(self) -> int:
        return len(self._wrong)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def network(address: str) -> str:
    """One key per client: a client with an IPv6 address has a whole /64 of them."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
