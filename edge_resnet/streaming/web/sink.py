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
from edge_resnet.streaming.records import Frame, Prediction, RunStatus
from edge_resnet.streaming.web.latest import LatestFrames
from edge_resnet.streaming.web.listen import Address, listen, resolve
from edge_resnet.streaming.web.tokens import Token

if TYPE_CHECKING:
    from edge_resnet.streaming.web.events import EventHub
    from edge_resnet.streaming.web.metrics import Metrics
    from edge_resnet.streaming.web.server import Server

__all__ = ["WebSink"]


class WebSink:
    """A page and an API at ``address``, HOST:PORT; port 0 takes any free one.

    ``status``: called by the server's threads at most four times a second. ``token``: what clients must send, None for no token;
    an address that other machines can reach is refused without one. Raises ConfigError if address or token cannot be used.
    """

    name = "web"
    wants_frames = True

    def __init__(self, address: str, status: Callable[[], RunStatus], *, token: str | None = None) -> None:
        self._address: Address = resolve(address)
        self._token = None if token is None else Token(token)
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
                self._running = _start(self._latest, self._address, self._token, sock)
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


def _start(latest: LatestFrames, address: Address, token: Token | None, sock: socket.socket) -> _Running:
    try:
        from edge_resnet.streaming.web.events import EventHub
        from edge_resnet.streaming.web.routes import Api, build_app
        from edge_resnet.streaming.web.server import Server
        from edge_resnet.streaming.web.streams import Streams
    except ImportError as error:
        raise MissingDependencyError(f"--web needs {error.name}", hint="pip install 'edge-resnet[web]'") from error
    latest.status()
    event_hub, streams = EventHub(), Streams()
    pool = ThreadPoolExecutor(2, thread_name_prefix="web")
    api = Api(latest, event_hub, streams, pool)
    port: int = sock.getsockname()[1]
    server = Server(build_app(api, token, address.host if address.loopback else None), sock, streams)
    server.start()
    return _Running(server, event_hub, api.metrics, pool, port)
