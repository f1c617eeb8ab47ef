"""Predictions as server-sent events, a bounded queue per client. Knows nothing of images.

An event is ``data:`` and a line of JSON: the prediction's fields and ``source_index``, its place in the status. A client that is
too slow loses the oldest; it is told so by an event ``lost`` with the count since it came.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import asdict, dataclass

from edge_resnet.streaming.web.latest import LatestFrames, Newest
from edge_resnet.streaming.web.streams import pause

__all__ = ["MEDIA_TYPE", "EventFilter", "EventHub", "Subscriber", "to_json"]

MEDIA_TYPE = "text/event-stream; charset=utf-8"
QUEUE = 256
_HEARTBEAT_S = 5.0
_RETRY = b"retry: 2000\n\n"


@dataclass(frozen=True)
class EventFilter:
    """``on_change``: only predictions whose answer differs from the one before. ``every_s``: of a source at most one in that
    time, but for changes."""

    on_change: bool = False
    every_s: float = 0.0


class Subscriber:
    """One client's queue: filled by the pipeline's thread, emptied by the server's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wish: EventFilter, hub: EventHub, feed: LatestFrames) -> None:
        self._loop = loop
        self._wish = wish
        self._hub = hub
        self._feed = feed
        self._lock = threading.Lock()
        self._queue: deque[Newest] = deque()
        self._waiting: asyncio.Event | None = None
        self._answers: dict[int, int] = {}
        self._offered_s: dict[int, float] = {}
        self.lost = 0

    def offer(self, newest: Newest) -> int:
        """Queue it where the client wants it; returns how many were lost for it, 0 or 1. Never waits for the client."""
        with self._lock:
            if not self._wanted(newest):
                return 0
            lost = int(len(self._queue) >= QUEUE)
            if lost:
                self._queue.popleft()
                self.lost += 1
            self._queue.append(newest)
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            with suppress(RuntimeError):  # the server ended between
                self._loop.call_soon_threadsafe(waiting.set)
        return lost

    async def chunks(self, wake: asyncio.Event) -> AsyncGenerator[bytes, None]:
        """The newest of each source, then events as they come, and a comment where none came for a while."""
        self._hub.join(self)
        try:
            for newest in self._feed.all_newest():
                self.offer(newest)
            async for chunk in self._endless(wake):
                yield chunk
        finally:
            self._hub.leave(self)

    async def _endless(self, wake: asyncio.Event) -> AsyncGenerator[bytes, None]:
        yield _RETRY
        told = 0
        while True:
            taken, lost = self._take()
            text = "".join(map(_event, taken))
            if lost > told:
                told = lost
                text = f'event: lost\ndata: {{"lost": {lost}}}\n\n' + text
            if text:
                yield text.encode()
                continue
            # Cleared only right after it was looked at whether all must end: else that signal would be cleared with it.
            yield b""
            wake.clear()
            with self._lock:
                self._waiting = None if self._queue else wake
            if self._waiting:
                await pause(wake, _HEARTBEAT_S)
                if not wake.is_set():
                    yield b": heartbeat\n\n"

    def _take(self) -> tuple[list[Newest], int]:
        with self._lock:
            taken = list(self._queue)
            self._queue.clear()
            return taken, self.lost

    def _wanted(self, newest: Newest) -> bool:
        seen = _answer(newest)
        changed = self._answers.get(newest.index) != seen
        self._answers[newest.index] = seen
        now = time.monotonic()
        if not changed and (self._wish.on_change or now - self._offered_s.get(newest.index, 0.0) < self._wish.every_s):
            return False
        self._offered_s[newest.index] = now
        return True


class EventHub:
    """Hands predictions to whoever listens. Safe to use from several threads."""

    def __init__(self) -> None:
        self._subscribers: tuple[Subscriber, ...] = ()
        self._lock = threading.Lock()
        self.lost = 0

    def publish(self, newest: Newest) -> None:
        """Offer it to all."""
        for subscriber in self._subscribers:
            self.lost += subscriber.offer(newest)

    def join(self, subscriber: Subscriber) -> None:
        """Have it offered what comes."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Offer it nothing more."""
        with self._lock:
            self._subscribers = tuple(other for other in self._subscribers if other is not subscriber)


def to_json(value: object) -> str:
    """JSON that every browser reads: ASCII, and null where a number is not finite."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _event(newest: Newest) -> str:
    return f"id: {newest.number}\ndata: {to_json({**asdict(newest.prediction), 'source_index': newest.index})}\n\n"


def _answer(newest: Newest) -> int:
    answer = newest.prediction.answer
    return answer.class_index if answer is not None else newest.prediction.top[0].class_index
