"""Access control: the Host header, the token, the headers of every response. Does not know what the routes do.

Every request passes here first. On loopback the Host header is checked: else any web site could reach the server through a host
name of its own that resolves to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_resnet.streaming.web.origin import Origin, parse_origin
from edge_resnet.streaming.web.tokens import Attempts, Token

__all__ = ["OPEN", "Access", "Guard", "client", "cookie_name", "too_many"]

#: Open to everyone: the health checks, and the sign-in form.
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


@dataclass(frozen=True)
class Access:
    """Who may come in. ``token``: what clients must send, None for nothing. ``host``: the bound host if only this machine can
    reach the server, else None. ``origin``: where browsers see the page if a proxy is in front of the server."""

    token: Token | None = None
    host: str | None = None
    origin: Origin | None = None

    def hosts(self) -> frozenset[str] | None:
        """The hosts that a Host header may name, None for any."""
        if self.host is None:
            return None
        known = (self.host, *([] if self.origin is None else [self.origin.host]))
        return _LOCAL | {f"[{host}]" if ":" in host else host.lower() for host in known}

    def sent_from(self, headers: Headers) -> Origin | None:
        """The origin of the page that sent a form, if it is this server's own; None for that of another site."""
        sent = parse_origin(headers.get("origin", ""))
        if sent is None:
            return None
        return sent if sent in (self.origin, parse_origin(f"{sent.scheme}://{headers.get('host', '')}")) else None


class Guard:
    """Wraps the routes. ``sign_in``: makes the page for a browser without a token."""

    def __init__(self, routes: ASGIApp, access: Access, attempts: Attempts, sign_in: Callable[[], Response]) -> None:
        self._routes = routes
        self._token = access.token
        self._hosts = access.hosts()
        self._sign_in = sign_in
        self._attempts = attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse a request."""
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
            return PlainTextResponse("this server answers requests to localhost only\n", 400)
        if self._token is None or scope["path"] in OPEN:
            return None
        if self._token.signed(_cookie(headers, cookie_name(scope))):
            return None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if self._token.matches(shown.strip()):
                return None
            wait_s = self._attempts.wait_s(client(scope))
            if wait_s > 0:
                return too_many(wait_s)
            self._attempts.wrong(client(scope))
        elif "text/html" in headers.get("accept", ""):
            return self._sign_in()
        return PlainTextResponse("a token is required: Authorization: Bearer TOKEN\n", 401, {"WWW-Authenticate": "Bearer"})


def too_many(wait_s: float) -> Response:
    """The response to an address that sent too many wrong tokens."""
    return PlainTextResponse("too many wrong tokens, wait a minute\n", 429, {"Retry-After": str(math.ceil(wait_s))})


def client(scope: Scope) -> str:
    """The client's address; headers of proxies are not trusted."""
    return str(scope["client"][0]) if scope.get("client") else ""


def cookie_name(scope: Scope) -> str:
    """The cookie's name. It contains the port, since browsers share cookies between all ports of a host."""
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
