"""How many connections and requests the server takes at a time, and which are dropped first. Knows no routes and no tokens.

A connection without a request is worth nothing: when there are too many, the one that has been idle for longest is closed. A
request is worth its answer: beyond the limit it gets 503, but for health checks and metrics, for which places are kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from edge_resnet.streaming.web.tokens import network

__all__ = ["KEPT", "Admission", "Connection", "Limits", "limited", "limits_for"]

_log = logging.getLogger("edge_resnet.streaming.web.server")

#: Answered also where all other requests are refused.
KEPT = frozenset({"/healthz", "/readyz", "/metrics"})
#: Seconds for the header of a request, counted from the connection or from the first byte after the response before it.
HEADER_S = 3.0
#: A connection that requests nothing, or reads nothing of its response, is closed after so many seconds.
IDLE_S = 10.0


@dataclass(frozen=True)
class Limits:
    """``requests`` at a time, of which ``per_address`` from one address; ``kept``: connections beyond them, for health checks and
    metrics; ``backlog``: connections that wait in the kernel.

    Idle connections are closed beyond ``requests + kept``. If none is idle, for example while many health checks are answered,
    a new one is accepted up to twice as many kept places more.
    """

    requests: int
    per_address: int
    kept: int
    backlog: int = 64

    @property
    def accepted_at_once(self) -> int:
        """How many connections are accepted before the event loop reads: few, so that those which come after a connection do not
        close it before its request is read."""
        return max(1, self.kept // 4)


def limits_for(descriptors: int) -> Limits:
    """The limits of a process that may open so many files: most of these are kept for cameras, engines and files."""
    requests = max(8, min(128, descriptors // 8))
    return Limits(requests, requests // 2, kept=16)


class Admission:
    """Wraps the routes: answers 503 to requests beyond the limits, but never to those for which places are kept."""

    def __init__(self, routes: ASGIApp, limits: Limits) -> None:
        self._routes = routes
        self._limits = limits
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse a request."""
        if scope["path"] in KEPT:
            await self._routes(scope, receive, send)
            return
        address = network(str(scope["client"][0]) if scope.get("client") else "")
        if self._open.total() >= self._limits.requests or self._open[address] >= self._limits.per_address:
            refusal = PlainTextResponse("too many requests at a time\n", 503, {"Retry-After": "5", "Connection": "close"})
            await refusal(scope, receive, send)
            return
        self._open[address] += 1
        try:
            await self._routes(scope, receive, send)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]


class Connection(H11Protocol):
    """One connection. It makes room for itself when it is made, or is dropped."""

    limits: Limits

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _log  # uvicorn's own has a line for every request that is not HTTP
        self.network = ""
        self._idle_s = self._paused_s = time.monotonic()
        self._unread = (0, 0.0)
        self._header: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no request waits for its response."""
        return self.cycle is None or self.cycle.response_complete

    def droppable(self) -> tuple[bool, float] | None:
        """What orders the connections that may be dropped: idle ones first, then those that do not read; the longest first."""
        if self.idle:
            return False, self._idle_s
        return (True, self._paused_s) if self.flow.write_paused else None

    def drop(self) -> None:
        """Close at once, whatever waits to be sent."""
        self.connections.discard(self)
        self._header_came()
        self.transport.abort()

    def sweep(self) -> None:
        """To be called about once a second: drops the connection if it has been idle, or has not read, for too long."""
        now, unread = time.monotonic(), self.transport.get_write_buffer_size()
        if not (self.idle or self.flow.write_paused):
            self._unread = (0, 0.0)
            return
        before, since_s = self._unread
        # If the size of the buffer changes, the client reads, if slowly.
        self._unread = (unread, since_s if since_s and before == unread else now)
        if now - self._unread[1] > IDLE_S:
            self.drop()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place of another connection if there is none left."""
        super().connection_made(transport)
        self.network = network(self.client[0]) if self.client else ""
        self._idle_s = time.monotonic()
        self._header_starts()
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        same = [other for other in others if other.network == self.network]
        if not self._make_room(same, self.limits.per_address) or not self._make_room(others, self.limits.requests):
            self.logger.warning("too many connections: new ones are closed")
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._header_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The header of a further request has as long as that of the first."""
        if self.idle and self._header is None:
            self._header_starts()
        super().data_received(data)

    def handle_events(self) -> None:
        """Stop the timer once a request has begun."""
        super().handle_events()
        if not self.idle:
            self._header_came()

    def on_response_complete(self) -> None:
        """Idle from here on, unless the next request waits already."""
        self._idle_s = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is sent to."""
        self._paused_s = time.monotonic()
        super().pause_writing()

    def _make_room(self, others: Collection[Connection], requests: int) -> bool:
        """Close one of the others if they leave no place; False if none can be closed and there are far too many."""
        beyond = len(others) - requests - self.limits.kept
        if beyond < 0:
            return True
        ranked = [(rank, other) for other in others if (rank := other.droppable()) is not None]
        if not ranked:
            return beyond < 2 * self.limits.kept
        self.logger.warning("too many connections: idle ones are closed")
        min(ranked, key=lambda pair: pair[0])[1].drop()
        return True

    def _header_starts(self) -> None:
        self._header = self.loop.call_later(HEADER_S, self.drop)

    def _header_came(self) -> None:
        if self._header is not None:
            self._header.cancel()
            self._header = None


def limited(limits: Limits) -> type[Connection]:
    """The class of a server's connections, with its limits."""

    class Limited(Connection):
        pass

    Limited.limits = limits
    return Limited
