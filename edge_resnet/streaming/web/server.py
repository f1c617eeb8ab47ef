"""uvicorn in a thread of its own: starts it, closes idle connections, ends it within a second. Knows no routes."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.streaming.web.streams import Streams

__all__ = ["Server"]

_log = logging.getLogger(__name__)

_START_S = 10.0
#: A connection that requests nothing, or reads nothing of its response, is closed after so many seconds.
_IDLE_S = 10.0
_CONNECTIONS = 128
_HEADER_BYTES = 16 * 1024


class Server:
    """Serves an application on a listening socket, which it closes at the end."""

    def __init__(self, app: ASGIApp, sock: socket.socket, streams: Streams) -> None:
        self._sock = sock
        self._streams = streams
        self._loop: asyncio.AbstractEventLoop | None = None
        self._since: dict[H11Protocol, tuple[int, float]] = {}
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            callback_notify=self._sweep,
            timeout_notify=1,
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)

    def start(self) -> None:
        """Start, and return when it answers. Raises EdgeResnetError if it does not start."""
        self._thread.start()
        end = time.monotonic() + _START_S
        while not self._uvicorn.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                self.stop()
                raise EdgeResnetError("the web server does not start", hint="--debug shows why")
            time.sleep(0.005)

    def stop(self) -> None:
        """End the server and all open streams."""
        self._uvicorn.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._end_streams)
        self._thread.join(0.7)
        self._uvicorn.force_exit = True
        self._thread.join(0.5)
        self._sock.close()

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception:
            _log.exception("the web server ended")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._uvicorn.serve(sockets=[self._sock])

    def _end_streams(self) -> None:
        self._streams.stop()
        for connection in self._connections():
            if connection.flow.write_paused:
                connection.transport.abort()

    async def _sweep(self) -> None:
        """Close connections that have been idle for too long: uvicorn has no timeout for these."""
        now = time.monotonic()
        still: dict[H11Protocol, tuple[int, float]] = {}
        for connection in self._connections():
            cycle = connection.cycle
            waiting = connection.transport.get_write_buffer_size()
            if not (connection.flow.write_paused or cycle is None or cycle.response_complete):
                continue
            # If the size of the buffer changes, the client reads, if slowly.
            before, since_s = self._since.get(connection, (waiting, now))
            still[connection] = (waiting, since_s if before == waiting else now)
            if now - still[connection][1] > _IDLE_S:
                connection.transport.abort()
        self._since = still

    def _connections(self) -> list[H11Protocol]:
        return [open_now for open_now in self._uvicorn.server_state.connections if isinstance(open_now, H11Protocol)]
