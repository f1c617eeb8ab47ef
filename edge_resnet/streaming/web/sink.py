"""The web sink: stores the newest predictions, which a server shows. Knows neither routes nor HTTP.

The server's libraries are imported only when the sink is opened.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from edge_resnet.core.errors import ConfigError, MissingDependencyError
from edge_resnet.core.process import descriptor_limit
from edge_resnet.streaming.records import Frame, Prediction, RunStatus
from edge_resnet.streaming.web.latest import LatestFrames
from edge_resnet.streaming.web.listen import Address, listen, resolve
from edge_resnet.streaming.web.origin import Origin, web_origin
from edge_resnet.streaming.web.tokens import Token

if TYPE_CHECKING:
    from edge_resnet.streaming.web.events import EventHub
    from edge_resnet.streaming.web.metrics import Metrics
    from edge_resnet.streaming.web.server import Server

__all__ = ["WebSink"]


class WebSink:
    """A page and an API at ``address``, HOST:PORT; port 0 takes any free one.

    ``status``: called by the server's threads at most four times a second. ``token``: what clients must send, None for no token;
    a page that other machines can reach is refused without one. ``origin``: the address of the page that browsers show if a proxy
    is in front of it, such as ``https://cam.example``: then others reach it whatever ``address`` is. Raises ConfigError if one of
    them cannot be used.
    """

    name = "web"
    wants_frames = True

    def __init__(
        self, address: str, status: Callable[[], RunStatus], *, token: str | None = None, origin: str | None = None
    ) -> None:
        self._address: Address = resolve(address)
        self._origin: Origin | None = None if origin is None else web_origin(origin)
        self._token = None if token is None else Token(token)
        if token is None and self._origin is not None:
            raise ConfigError(
                "behind a proxy the page can be reached from other machines, and no token is set",
                hint="set one with --web-token or EDGE_RESNET_WEB_TOKEN",
            )
        if token is None and not self._address.loopback:
            raise ConfigError(
                f"{address} can be reached from other machines, and no token is set",
                hint="set one with --web-token or EDGE_RESNET_WEB_TOKEN, or listen on 127.0.0.1",
            )
        self._latest = LatestFrames(status)
        self._running: _Running | None = None
        self._port = self._address.port

    @property
    def url(self) -> str:
        """The URL for a browser; with port 0 it is known once the sink is open."""
        return self._address.url(self._port)

    def open(self) -> WebSink:
        """Bind, then start the server; may be called again.

        Raises ConfigError if the address cannot be bound, MissingDependencyError if the server's libraries are not installed.
        """
        if self._running is None:
            sock = listen(self._address)
            try:
                self._running = self._start(sock)
            except BaseException:
                sock.close()
                raise
            self._port = self._running.port
        return self

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Store the prediction and its frame, and queue it for the clients. Never waits for a client."""
        newest = self._latest.put(prediction, frame)
        running = self._running
        if newest is not None and running is not None:
            running.metrics.observe(newest)
            running.event_hub.publish(newest)

    def close(self) -> None:
        """End the server within a second, whichever clients are connected."""
        running, self._running = self._running, None
        if running is not None:
            running.server.stop()
            running.pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, sock: socket.socket) -> _Running:
        try:
            from edge_resnet.streaming.web.access import Access
            from edge_resnet.streaming.web.events import EventHub
            from edge_resnet.streaming.web.limits import limits_for
            from edge_resnet.streaming.web.routes import Api, build_app
            from edge_resnet.streaming.web.server import Server
            from edge_resnet.streaming.web.streams import Streams
        except ImportError as error:
            raise MissingDependencyError(f"--web needs {error.name}", hint="pip install 'edge-resnet[web]'") from error
        self._latest.status()
        event_hub, streams, limits = EventHub(), Streams(), limits_for(descriptor_limit())
        pool = ThreadPoolExecutor(2, thread_name_prefix="web")
        api = Api(self._latest, event_hub, streams, pool)
        access = Access(self._token, self._address.host if self._address.loopback else None, self._origin)
        server = Server(build_app(api, access, limits), sock, streams, limits)
        server.start()
        port: int = sock.getsockname()[1]
        return _Running(server, event_hub, api.metrics, pool, port)

    def __enter__(self) -> WebSink:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


@dataclass(frozen=True)
class _Running:
    server: Server
    event_hub: EventHub
    metrics: Metrics
    pool: ThreadPoolExecutor
    port: int
