"""Who may ask what: the Host header, the token, the headers of every answer. Knows no route's content.

Each request passes here first. On loopback the Host header is checked: else any web page could reach the server through a name of
its own that resolves to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_resnet.streaming.web.tokens import Attempts, Token

__all__ = ["OPEN", "Guard", "too_many"]


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
