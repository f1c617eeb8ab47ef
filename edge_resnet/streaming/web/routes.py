"""The API: images, predictions, status, metrics, health. Does not know about tokens or files."""

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
from edge_resnet.streaming.sinks.serialise import encode_json
from edge_resnet.streaming.web import events, jpegstream, metrics
from edge_resnet.streaming.web.access import Access, Guard
from edge_resnet.streaming.web.events import EventFilter, EventHub, Subscriber
from edge_resnet.streaming.web.jpegstream import JpegStream
from edge_resnet.streaming.web.latest import LatestFrames
from edge_resnet.streaming.web.limits import Admission, Limits
from edge_resnet.streaming.web.metrics import Clients, Metrics
from edge_resnet.streaming.web.pages import Pages
from edge_resnet.streaming.web.streams import Chunks, Stream, Streams
from edge_resnet.streaming.web.tokens import Attempts

__all__ = ["LISTENERS", "WATCHERS", "Api", "build_app", "health"]

#: Clients that may view one source at a time.
WATCHERS = 8
#: Clients that may receive predictions at a time.
LISTENERS = 32
_EVENTS = "events"
_BUSY = {"Retry-After": "5"}
#: Longer than any network takes for a frame, and longer than a camera takes to reconnect.
_MAX_QUIET_S = 10.0
_INDEX_DIGITS = 4


class Api:
    """Its methods handle the routes, on the server's thread."""

    def __init__(self, latest: LatestFrames, event_hub: EventHub, streams: Streams, pool: Executor) -> None:
        self._latest = latest
        self._event_hub = event_hub
        self._streams = streams
        self._pool = pool
        self._images = JpegStream(latest, pool)
        self.metrics = Metrics(latest.status, self._clients)

    async def stream(self, request: Request) -> Response | Stream:
        """The live frames of one source."""
        name: str = request.path_params["index"]
        # At most four digits: Python refuses to read thousands of them.
        if not (name.isascii() and name.isdecimal() and len(name) <= _INDEX_DIGITS):
            raise HTTPException(404)
        index, count = int(name), len((await self._status()).sources)
        if index >= count:
            raise HTTPException(404, f"sources go from 0 to {count - 1}")
        return self._open(f"images {index}", WATCHERS, jpegstream.MEDIA_TYPE, lambda wake: self._images.parts(index, wake))

    async def predictions(self, request: Request) -> Response | Stream:
        """Predictions as they come, after the newest of each source."""
        subscriber = Subscriber(asyncio.get_running_loop(), _event_filter(request), self._event_hub, self._latest)
        return self._open(_EVENTS, LISTENERS, events.MEDIA_TYPE, subscriber.chunks)

    async def status(self, request: Request) -> Response:  # noqa: ARG002
        """The run's status."""
        text = encode_json({"version": __version__, **asdict(await self._status())})
        return Response(text, media_type="application/json")

    async def scrape(self, request: Request) -> Response:  # noqa: ARG002
        """The metrics for Prometheus."""
        text = await asyncio.get_running_loop().run_in_executor(self._pool, self.metrics.text)
        return Response(text, headers={"Content-Type": metrics.MEDIA_TYPE})

    async def healthz(self, request: Request) -> Response:  # noqa: ARG002
        """Whether the pipeline makes progress."""
        healthy, reason = health(await self._status(), time.monotonic() - self._latest.last_put_s)
        return PlainTextResponse(reason + "\n", 200 if healthy else 503)

    async def readyz(self, request: Request) -> Response:  # noqa: ARG002
        """Whether there are predictions."""
        ready = (await self._status()).ready
        return PlainTextResponse(
            "ready\n" if ready else "not ready: there is no prediction yet, or no source is live\n", 200 if ready else 503
        )

    async def _status(self) -> RunStatus:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._latest.status)

    def _open(self, kind: str, limit: int, media_type: str, chunks: Chunks) -> Response | Stream:
        if not self._streams.enter(kind, limit):
            return PlainTextResponse(f"the limit of {limit} clients is reached\n", 503, _BUSY)
        return Stream(self._streams, kind, media_type, chunks)

    def _clients(self) -> Clients:
        counts = dict(self._streams.counts)
        listeners = counts.pop(_EVENTS, 0)
        return Clients(sum(counts.values()), listeners, self._event_hub.lost)


def _event_filter(request: Request) -> EventFilter:
    """Read the query. Raises HTTPException if it is not valid."""
    on_change = request.query_params.get("on_change", "0")
    rate = request.query_params.get("max_per_s", "0")
    if on_change not in ("0", "1"):
        raise HTTPException(400, "on_change is 0 or 1")
    if not (rate.isascii() and rate.isdecimal() and len(rate) <= 6):
        raise HTTPException(400, "max_per_s is a whole number, 0 for all")
    return EventFilter(on_change == "1", 1 / int(rate) if int(rate) else 0.0)


def build_app(api: Api, access: Access, limits: Limits) -> ASGIApp:
    """The application with all routes."""
    attempts = Attempts()
    pages = Pages(access, attempts)
    routes = [
        Route("/", pages.home),
        Route("/static/{name}", pages.static),
        Route("/stream/{index}.mjpeg", api.stream),
        Route("/api/predictions", api.predictions),
        Route("/api/status", api.status),
        Route("/metrics", api.scrape),
        Route("/healthz", api.healthz),
        Route("/readyz", api.readyz),
    ]
    if access.token is not None:
        routes.append(Route("/login", pages.login, methods=["GET", "POST"]))
    app = Starlette(routes=routes)
    # A path with a trailing slash is not found: a redirect would be built from the Host header.
    app.router.redirect_slashes = False
    return Guard(Admission(app, limits), access, attempts, pages.sign_in)


def health(status: RunStatus, quiet_s: float) -> tuple[bool, str]:
    """Whether the run is healthy, and the reason. ``quiet_s``: since the newest prediction, or since the start.

    A restart does not bring back a camera that is gone: the run waits for it and stays healthy. Not healthy: frames arrive
    without predictions, or all sources have ended and at least one of them failed.
    """
    if quiet_s <= _MAX_QUIET_S:
        return True, "ok"
    states = [source.state for source in status.sources]
    if states and all(state in ("failed", "ended") for state in states) and "failed" in states:
        return False, "every source has failed"
    if any(state == "live" for state in states):
        return False, f"no prediction for {quiet_s:.0f} s, although frames arrive"
    return True, "waiting for frames"
