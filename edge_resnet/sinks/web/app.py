"""The routes, put together and guarded. Knows neither sockets nor threads."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from edge_resnet.sinks.web.api import Api
from edge_resnet.sinks.web.guard import Guard
from edge_resnet.sinks.web.pages import Pages
from edge_resnet.sinks.web.tokens import Attempts, Token

__all__ = ["build_app"]


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
