"""Endless responses: counted, limited, ended together. Knows the framing of HTTP, not what is streamed.

Nothing here is cancelled: a stream ends when its client disconnects, when its chunks end, or when all must stop. A client that
does not read blocks only its own stream, and the server closes the connection after a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

__all__ = ["Chunks", "Stream", "Streams", "pause"]

#: Yields what to send, or ``b""`` to have only the client checked. The event is set when the client is gone or all streams must
#: end: wait for that event, with a timeout, and for nothing else.
Chunks: TypeAlias = Callable[[asyncio.Event], AsyncGenerator[bytes, None]]


class Streams:
    """The open streams of one server. Used only on the server's thread."""

    def __init__(self) -> None:
        self.stopping = False
        self.counts: Counter[str] = Counter()
        self._wakes: set[asyncio.Event] = set()

    def enter(self, kind: str, limit: int) -> bool:
        """Count one more of its kind; False if the limit is reached."""
        if self.stopping or self.counts[kind] >= limit:
            return False
        self.counts[kind] += 1
        return True

    def leave(self, kind: str) -> None:
        """Count one less."""
        self.counts[kind] -= 1

    def stop(self) -> None:
        """End every stream."""
        self.stopping = True
        for wake in self._wakes:
            wake.set()

    def register(self, wake: asyncio.Event) -> None:
        """Set an event when all must stop."""
        self._wakes.add(wake)

    def forget(self, wake: asyncio.Event) -> None:
        """Undo ``register``."""
        self._wakes.discard(wake)


class Stream:
    """One response whose body is ``chunks``. ``kind`` was entered by the caller, and is left when the response ends."""

    def __init__(self, streams: Streams, kind: str, media_type: str, chunks: Chunks) -> None:
        self._streams = streams
        self._kind = kind
        self._media_type = media_type
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the stream ends."""
        wake = asyncio.Event()
        gone = asyncio.ensure_future(_gone(receive))
        gone.add_done_callback(lambda _: wake.set())
        self._streams.register(wake)
        try:
            headers = [
                (b"content-type", self._media_type.encode()),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] != "HEAD":
                await self._body(send, wake, gone)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.forget(wake)
            self._streams.leave(self._kind)
            gone.cancel()

    async def _body(self, send: Send, wake: asyncio.Event, gone: asyncio.Future[None]) -> None:
        async with aclosing(self._chunks(wake)) as chunks:
            async for chunk in chunks:
                if gone.done() or self._streams.stopping:
                    return
                if chunk:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def pause(wake: asyncio.Event, seconds: float) -> None:
    """Wait for so long, or until the event is set."""
    try:
        await asyncio.wait_for(wake.wait(), seconds)
    except asyncio.TimeoutError:
        return


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
