"""uvicorn in a thread of its own: starts it, keeps its limits, ends it within a second. Knows no routes."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.streaming.web.limits import Connection, Limits, limited
from edge_resnet.streaming.web.serverlog import OncePerMinute, loop_errors
from edge_resnet.streaming.web.streams import Streams

__all__ = ["Server"]

_log = logging.getLogger(__name__)
_log.addFilter(OncePerMinute(_log))

_START_S = 10.0
#: At the end, responses have so long to be sent and read.
_LAST_S = 0.4
_HEADER_BYTES = 16 * 1024


class Server:
    """Serves an application on a listening socket, which it closes at the end."""

    def __init__(self, app: ASGIApp, sock: socket.socket, streams: Streams, limits: Limits) -> None:
        self._sock = sock
        self._streams = streams
        self._backlog = limits.backlog
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=limited(limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=limits.accepted_at_once,  # the event loop accepts as many at once
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
        self._sock.listen(self._backlog)  # more may wait in the kernel than are accepted at once

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
        self._loop.set_exception_handler(loop_errors(_log))
        await self._uvicorn.serve(sockets=[self._sock])

    def _end_streams(self) -> None:
        self._streams.stop()
        for connection in self._connections():
            if connection.flow.write_paused:
                connection.drop()
        asyncio.get_running_loop().call_later(_LAST_S, self._drop_all)

    def _drop_all(self) -> None:
        for connection in self._connections():
            connection.drop()

    async def _sweep(self) -> None:
        """Close connections that have been idle for too long: uvicorn has no timeout for these."""
        for connection in self._connections():
            connection.sweep()

    def _connections(self) -> list[Connection]:
        return [open_now for open_now in self._uvicorn.server_state.connections if isinstance(open_now, Connection)]
