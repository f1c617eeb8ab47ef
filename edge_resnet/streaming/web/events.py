"""Predictions as server-sent events, with a bounded queue per client. Does not know about images.

An event is ``data:`` and a line of JSON: the prediction's fields and ``source_index``, the position of its source in the status.
A client that is too slow loses the oldest events; an event ``lost`` gives their number since it connected.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

from edge_resnet.streaming.sinks.serialise import encode_json, prediction_fields
from edge_resnet.streaming.web.latest import LatestFrames, Newest
from edge_resnet.streaming.web.streams import pause

__all__ = ["MEDIA_TYPE", "EventFilter", "EventHub", "Subscriber"]

MEDIA_TYPE = "text/event-stream; charset=utf-8"
QUEUE = 256
_HEARTBEAT_S = 5.0
_RETRY = b"retry: 2000\n\n"


@dataclass(frozen=True)
class EventFilter:
    """``on_change``: only predictions whose answer differs from the one before. ``every_s``: at most one per source in that time,
    except for changes."""

    on_change: bool = False
    every_s: float = 0.0


class Subscriber:
    """One client's queue: filled by the web sink's thread, emptied by the server's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wanted: EventFilter, event_hub: EventHub, latest: LatestFrames) -> None:
        self._loop = loop
        self._filter = wanted
        self._event_hub = event_hub
        self._latest = latest
        self._lock = threading.Lock()
        self._queue: deque[Newest] = deque()
        self._waiting: asyncio.Event | None = None
        self._answers: dict[int, int] = {}
        self._offered_s: dict[int, float] = {}
        self.lost = 0

    def offer(self, newest: Newest) -> int:
        """Queue it if it passes the client's filter; returns how many events were lost, 0 or 1. Never waits for the client."""
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
            with suppress(RuntimeError):  # the server has ended meanwhile
                self._loop.call_soon_threadsafe(waiting.set)
        return lost

    async def chunks(self, wake: asyncio.Event) -> AsyncGenerator[bytes, None]:
        """The newest of each source, then events as they come, and a comment if none came for a while."""
        self._event_hub.join(self)
        try:
            for newest in self._latest.all_newest():
                self.offer(newest)
            async for chunk in self._endless(wake):
                yield chunk
        finally:
            self._event_hub.leave(self)

    async def _endless(self, wake: asyncio.Event) -> AsyncGenerator[bytes, None]:
        yield _RETRY
        reported = 0
        while True:
            taken, lost = self._take()
            text = "".join(map(_event, taken))
            if lost > reported:
                reported = lost
                text = f'event: lost\ndata: {{"lost": {lost}}}\n\n' + text
            if text:
                yield text.encode()
                continue
            # The caller checks at each yield whether all streams must end. Cleared right after that, the signal is not missed.
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
        if not changed and (self._filter.on_change or now - self._offered_s.get(newest.index, 0.0) < self._filter.every_s):
            return False
        self._offered_s[newest.index] = now
        return True


class EventHub:
    """Hands predictions to the connected clients. Safe to use from several threads."""

    def __init__(self) -> None:
        self._subscribers: tuple[Subscriber, ...] = ()
        self._lock = threading.Lock()
        self.lost = 0

    def publish(self, newest: Newest) -> None:
        """Offer a prediction to every client."""
        for subscriber in self._subscribers:
            self.lost += subscriber.offer(newest)

    def join(self, subscriber: Subscriber) -> None:
        """Offer it every prediction from now on."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Offer it no more predictions."""
        with self._lock:
            self._subscribers = tuple(other for other in self._subscribers if other is not subscriber)


def _event(newest: Newest) -> str:
    fields = prediction_fields(newest.prediction)
    del fields["time"]  # the same as wall_ns, and never a key of the events
    return f"id: {newest.number}\ndata: {encode_json({**fields, 'source_index': newest.index})}\n\n"


def _answer(newest: Newest) -> int:
    answer = newest.prediction.answer
    return answer.class_index if answer is not None else newest.prediction.top[0].class_index
