"""What programs ask: images, predictions, status, metrics, health. Knows neither tokens nor files."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import asdict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edge_resnet.core import __version__
from edge_resnet.streaming.records import RunStatus
from edge_resnet.streaming.web import events, jpegstream, metrics
from edge_resnet.streaming.web.access import Guard
from edge_resnet.streaming.web.events import EventFilter, EventHub, Subscriber, to_json
from edge_resnet.streaming.web.jpegstream import JpegStream
from edge_resnet.streaming.web.latest import LatestFrames
from edge_resnet.streaming.web.metrics import Clients, Metrics
from edge_resnet.streaming.web.pages import Pages
from edge_resnet.streaming.web.streams import Chunks, Stream, Streams
from edge_resnet.streaming.web.tokens import Attempts, Token

__all__ = ["LISTENERS", "WATCHERS", "Api", "build_app", "health"]

#: Live images that one source is shown in at a time.
WATCHERS = 8
#: Clients of predictions at a time.
LISTENERS = 32
_EVENTS = "events"
_BUSY = {"Retry-After": "5"}


class Api:
    """Its methods are the routes' handlers, on the server's thread."""

    def __init__(self, feed: LatestFrames, hub: EventHub, streams: Streams, pool: Executor) -> None:
        self._feed = feed
        self._hub = hub
        self._streams = streams
        self._pool = pool
        self._images = JpegStream(feed, pool)
        self.metrics = Metrics(feed.status, self._clients)

    async def stream(self, request: Request) -> Response | Stream:
        """The live image of one source."""
        index: int = request.path_params["index"]
        count = len((await self._status()).sources)
        if index >= count:
            raise HTTPException(404, f"sources go from 0 to {count - 1}")
        return self._open(f"images {index}", WATCHERS, jpegstream.MEDIA_TYPE, lambda wake: self._images.parts(index, wake))

    async def predictions(self, request: Request) -> Response | Stream:
        """Predictions as they come, the newest of each source first."""
        subscriber = Subscriber(asyncio.get_running_loop(), _wish(request), self._hub, self._feed)
        return self._open(_EVENTS, LISTENERS, events.MEDIA_TYPE, subscriber.chunks)

    async def status(self, request: Request) -> Response:  # noqa: ARG002
        """The run's status."""
        text = to_json({"version": __version__, **asdict(await self._status())})
        return Response(text, media_type="application/json")

    async def scrape(self, request: Request) -> Response:  # noqa: ARG002
        """Prometheus's text."""
        text = await asyncio.get_running_loop().run_in_executor(self._pool, self.metrics.text)
        return Response(text, headers={"Content-Type": metrics.MEDIA_TYPE})

    async def healthz(self, request: Request) -> Response:  # noqa: ARG002
        """Whether the pipeline makes progress."""
        sound, reason = health(await self._status(), time.monotonic() - self._feed.last_put_s)
        return PlainTextResponse(reason + "\n", 200 if sound else 503)

    async def readyz(self, request: Request) -> Response:  # noqa: ARG002
        """Whether answers come."""
        ready = (await self._status()).ready
        return PlainTextResponse(
            "ready\n" if ready else "not ready: the engine or every source is still being opened\n", 200 if ready else 503
        )

    async def _status(self) -> RunStatus:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._feed.status)

    def _open(self, kind: str, limit: int, media_type: str, chunks: Chunks) -> Response | Stream:
        if not self._streams.enter(kind, limit):
            return PlainTextResponse(f"{limit} clients are served already\n", 503, _BUSY)
        return Stream(self._streams, kind, media_type, chunks)

    def _clients(self) -> Clients:
        counts = dict(self._streams.counts)
        listeners = counts.pop(_EVENTS, 0)
        return Clients(sum(counts.values()), listeners, self._hub.lost)


def _wish(request: Request) -> EventFilter:
    """Read the query. Raises HTTPException where it makes no sense."""
    on_change = request.query_params.get("on_change", "0")
    rate = request.query_params.get("max_per_s", "0")
    if on_change not in ("0", "1"):
        raise HTTPException(400, "on_change is 0 or 1")
    if not (rate.isascii() and rate.isdecimal() and len(rate) <= 6):
        raise HTTPException(400, "max_per_s is a whole number, 0 for all")
    return EventFilter(on_change == "1", 1 / int(rate) if int(rate) else 0.0)


def build_app(api: Api, token: Token | None, host: str | None) -> ASGIApp:
    """Every route of the server. ``host``: the bound one where only this machine can reach the server, None beyond."""
    attempts = Attempts()
    pages = Pages(token, attempts)
    routes = [
        Route("/", pages.home),
        Route("/static/{name}", pages.static),
        Route("/stream/{index:int}.mjpeg", api.stream),
        Route("/api/predictions", api.predictions),
        Route("/api/status", api.status),
        Route("/metrics", api.scrape),
        Route("/healthz", api.healthz),
        Route("/readyz", api.readyz),
    ]
    if token is not None:
        routes.append(Route("/login", pages.login, methods=["GET", "POST"]))
    app = Starlette(routes=routes)
    # A path with a slash too many is not found: a redirect would be built from the Host header.
    app.router.redirect_slashes = False
    return Guard(app, token, host, attempts, pages.sign_in)


#: Longer than any network takes for a frame, and than a reconnect to a camera.
_PATIENCE_S = 10.0


def health(status: RunStatus, quiet_s: float) -> tuple[bool, str]:
    """``quiet_s``: since the newest prediction, or since the start.

    A camera that is gone is not a fault that a restart mends: the run waits for it and stays sound. Frames that come without
    predictions are, and so are sources that were all given up.
    """
    if quiet_s <= _PATIENCE_S:
        return True, "ok"
    states = [source.state for source in status.sources]
    if states and all(state in ("failed", "ended") for state in states) and "failed" in states:
        return False, "every source was given up"
    if any(state == "live" for state in states):
        return False, f"no prediction for {quiet_s:.0f} s, though frames come"
    return True, "waiting for frames"
