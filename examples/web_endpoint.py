"""Classify images over HTTP: python web_endpoint.py ARTIFACT [PORT], then

curl --data-binary @cat.jpg http://127.0.0.1:8000/predict
"""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import edge_resnet as er

MAX_BYTES = 10_000_000


def make_app(artifact: str) -> Starlette:
    """POST /predict takes an image file as the request's body and answers with the five best classes."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with er.load(artifact) as app.state.model:  # opened once, closed with the server
            yield

    async def predict(request: Request) -> JSONResponse:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                return JSONResponse({"error": f"an image has at most {MAX_BYTES} bytes"}, 413)
        # predict may run in several threads at once, and must not block the event loop.
        return await run_in_threadpool(_answer, request.app.state.model, body)

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])], lifespan=lifespan)


def _answer(model: er.Model, body: bytes) -> JSONResponse:
    try:
        image = Image.open(io.BytesIO(body), formats=["JPEG", "PNG", "WEBP"])
        found = model.predict(image)
    except (er.ConfigError, OSError, Image.DecompressionBombError):
        return JSONResponse({"error": "the body is not a JPEG, PNG or WebP image"}, 400)
    return JSONResponse({"top": [asdict(score) for score in found.top]})


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
