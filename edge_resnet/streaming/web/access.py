"""Who may ask what: the Host header, the token, the headers of every answer. Knows no route's content.

Each request passes here first. On loopback the Host header is checked: else any web page could reach the server through a name of
its own that resolves to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_resnet.core.errors import ConfigError

__all__ = ["COOKIE_S", "OPEN", "Attempts", "Guard", "Token", "too_many"]


#: How long a browser stays signed in.
COOKIE_S = 7 * 24 * 3600


_SHORTEST = 8


_HINT = 'make one with: python3 -c "import secrets; print(secrets.token_urlsafe())"'


class Token:
    """A token that a client must show. Raises ConfigError where it is too short, or no header can carry it."""

    def __init__(self, secret: str) -> None:
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ConfigError("the web token holds characters that no HTTP header carries", hint=_HINT)
        if len(secret) < _SHORTEST:
            raise ConfigError(f"the web token has {len(secret)} characters, which is soon guessed", hint=_HINT)
        self._key = secret.encode()

    def matches(self, candidate: str) -> bool:
        """Compare in a time that tells nothing of how much was right, nor of the length."""
        return hmac.compare_digest(_digest(candidate.encode("utf-8", "replace")), _digest(self._key))

    def cookie(self) -> str:
        """What a browser is given to show from now on: not the token, and not forever. It outlives a restart of the server."""
        until = int(time.time()) + COOKIE_S
        return f"{until}.{self._sign(str(until))}"

    def signed(self, cookie: str) -> bool:
        """Whether the cookie is one of ours and not too old."""
        until, _, signature = cookie.partition(".")
        if not (until.isascii() and until.isdecimal() and len(until) < 16):
            return False
        right = hmac.compare_digest(_digest(signature.encode("utf-8", "replace")), _digest(self._sign(until).encode()))
        return right and int(until) > time.time()

    def _sign(self, until: str) -> str:
        return hmac.new(self._key, f"edge-resnet web until {until}".encode(), hashlib.sha256).hexdigest()


class Attempts:
    """Wrong tokens per address: after ten within a minute the address waits a minute. Remembers the last 1,024 addresses."""

    LIMIT = 10
    WAIT_S = 60.0
    REMEMBERED = 1024

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds that the address has to wait, 0 where it need not."""
        count, last_s = self._wrong.get(_network(address), (0, 0.0))
        left = last_s + self.WAIT_S - self._clock()
        return max(0.0, left) if count >= self.LIMIT else 0.0

    def wrong(self, address: str) -> None:
        """Count one more wrong token."""
        key, now = _network(address), self._clock()
        count, last_s = self._wrong.pop(key, (0, now))
        self._wrong[key] = (1 if now - last_s >= self.WAIT_S else count + 1, now)
        if len(self._wrong) > self.REMEMBERED:
            self._wrong.popitem(last=False)

    def __len__(self) -> int:
        return len(self._wrong)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _network(address: str) -> str:
    """One key per client: whoever has an IPv6 address has a whole /64 of them."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))


#: Told to anyone: whether it lives, and the form to sign in with.
OPEN = frozenset({"/healthz", "/readyz", "/login", "/static/page.css", "/static/icon.svg"})
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)


class Guard:
    """Around the routes. ``host``: the bound one where only this machine can reach the server, None beyond. ``sign_in``: what a
    browser without a token is shown."""

    def __init__(
        self, routes: ASGIApp, token: Token | None, host: str | None, attempts: Attempts, sign_in: Callable[[], Response]
    ) -> None:
        self._routes = routes
        self._token = token
        self._hosts = None if host is None else _LOCAL | {f"[{host}]" if ":" in host else host.lower()}
        self._sign_in = sign_in
        self._attempts = attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope, Headers(scope=scope))

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (refusal or self._routes)(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if self._hosts is not None and _host(headers) not in self._hosts:
            return PlainTextResponse("this server answers to localhost alone\n", 400)
        if self._token is None or scope["path"] in OPEN:
            return None
        if self._token.signed(_cookie(headers, cookie_name(scope))):
            return None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            address = client(scope)
            wait_s = self._attempts.wait_s(address)
            if wait_s > 0:
                return too_many(wait_s)
            if self._token.matches(shown.strip()):
                return None
            self._attempts.wrong(address)
        elif "text/html" in headers.get("accept", ""):
            return self._sign_in()
        return PlainTextResponse("a token is needed: Authorization: Bearer TOKEN\n", 401, {"WWW-Authenticate": "Bearer"})


def too_many(wait_s: float) -> Response:
    """The answer to an address that guessed too often."""
    return PlainTextResponse("too many wrong tokens, wait a minute\n", 429, {"Retry-After": str(math.ceil(wait_s))})


def client(scope: Scope) -> str:
    """The address of who asks; headers of proxies are not believed."""
    return str(scope["client"][0]) if scope.get("client") else ""


def cookie_name(scope: Scope) -> str:
    """Browsers keep one cookie jar for all ports of a host, so the name holds the port."""
    return f"edge_resnet_{scope['server'][1]}"


def _host(headers: Headers) -> str:
    host, colon, port = headers.get("host", "").lower().rpartition(":")
    return host if colon and port.isdecimal() else headers.get("host", "").lower()


def _cookie(headers: Headers, name: str) -> str:
    try:
        jar = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""
