"""Responses without an end: counted, limited, ended together. Knows HTTP's framing, not what is streamed.

Nothing here is cancelled: a stream ends when its client goes, when its chunks end, or when all are told to stop. A client that
does not read blocks only its own stream; the server lets go of it after a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

__all__ = ["Chunks", "Stream", "Streams", "pause"]

#: Yields what to send, or nothing (``b""``) to have it looked at whether the client is still there. The event is set when it is
#: gone or all must end: wait for that, with a timeout, and not for anything else.
Chunks: TypeAlias = Callable[[asyncio.Event], AsyncGenerator[bytes, None]]


class Streams:
    """The open streams of one server. Used on the server's thread alone."""

    def __init__(self) -> None:
        self.stopping = False
        self.counts: Counter[str] = Counter()
        self._wakes: set[asyncio.Event] = set()

    def enter(self, kind: str, limit: int) -> bool:
        """Count one more of its kind, or say that there are enough."""
        if self.stopping or self.counts[kind] >= limit:
            return False
        self.counts[kind] += 1
        return True

    def leave(self, kind: str) -> None:
        """Count one less."""
        self.counts[kind] -= 1

    def stop(self) -> None:
        """Have every stream end now."""
        self.stopping = True
        for wake in self._wakes:
            wake.set()

    def register(self, wake: asyncio.Event) -> None:
        """Have an event set when all must stop."""
        self._wakes.add(wake)

    def forget(self, wake: asyncio.Event) -> None:
        """Take that back."""
        self._wakes.discard(wake)


class Stream:
    """One response whose body is ``chunks``; ``kind`` was entered and is left when it ends."""

    def __init__(self, streams: Streams, kind: str, media_type: str, chunks: Chunks) -> None:
        self._streams = streams
        self._kind = kind
        self._media_type = media_type
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until it ends."""
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
    """Wait, but not longer than until the event is set."""
    try:
        await asyncio.wait_for(wake.wait(), seconds)
    except asyncio.TimeoutError:
        return


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
