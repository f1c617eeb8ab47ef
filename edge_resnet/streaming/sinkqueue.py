"""A sink in its own thread behind a queue: however slow it is or often it fails, prediction continues. Knows no format."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

import numpy as np

from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.streaming.records import Frame, Prediction, SinkStatus
from edge_resnet.streaming.sinks import Sink

__all__ = ["SinkQueue"]

_log = logging.getLogger(__name__)
#: Predictions that wait for a sink: few if it wants frames, since a frame of 1080p takes 6 MB.
_QUEUED, _QUEUED_FRAMES = 512, 8
#: Bytes of frames that wait for a sink; a single larger frame is queued alone.
_QUEUED_BYTES = 64 << 20
#: Seconds after which an error of a sink is logged again, whatever it says: the text may name another file each time.
_QUIET_S = 60.0
_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


class SinkQueue:
    """Passes predictions to a sink in order. If the queue is full they are lost and counted; if ``lossless``, the caller waits.

    ``only_changes``: pass on only those whose answer changed. ``gone``: set when the reader of the sink's output is gone.
    """

    def __init__(self, sink: Sink, *, lossless: bool, only_changes: bool = False) -> None:
        self.gone = threading.Event()
        self._sink, self._lossless, self._only_changes = sink, lossless, only_changes
        self._limit = _QUEUED_FRAMES if sink.wants_frames else _QUEUED
        self._waiting: deque[tuple[Prediction, Frame]] = deque()
        self._waiting_bytes = 0
        self._news = threading.Condition()
        self._closing = False
        self._written = self._lost = 0
        self._error, self._logged_s = "", -_QUIET_S
        #: Whether the newest line of the log says that it fails.
        self._told = False
        self._thread = threading.Thread(target=self._serve, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Queue a prediction; returns at once unless ``lossless`` and the queue is full."""
        if self._only_changes and (prediction.answer is None or not prediction.answer.changed):
            return
        if not self._sink.wants_frames:
            frame = Frame(_NO_IMAGE, frame.index, frame.captured_ns, frame.source)  # the queue must not hold images alive
        size = frame.image.nbytes
        with self._news:
            if self._lossless:
                self._news.wait_for(lambda: not self._is_full(size) or self._closing or self.gone.is_set())
            if self._is_full(size) or self._closing or self.gone.is_set():
                self._lost += 1
                return
            self._waiting.append((prediction, frame))
            self._waiting_bytes += size
            self._news.notify_all()

    def close(self, within_s: float) -> None:
        """Let the sink take what waits, for at most so many seconds; the rest is lost. The sink stays open."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._thread.join(within_s)
        with self._news:
            self._drop_waiting()

    def status(self) -> SinkStatus:
        """Counts so far."""
        return SinkStatus(self._sink.name, self._written, self._lost, self._error)

    def _is_full(self, size: int) -> bool:
        """Whether there is no place for a frame of ``size`` bytes."""
        too_many_bytes = bool(self._waiting) and self._waiting_bytes + size > _QUEUED_BYTES
        return too_many_bytes or len(self._waiting) >= self._limit

    def _drop_waiting(self) -> None:
        self._lost += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0

    def _serve(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                prediction, frame = self._waiting.popleft()
                self._waiting_bytes -= frame.image.nbytes
                self._news.notify_all()
            self._hand_over(prediction, frame)

    def _hand_over(self, prediction: Prediction, frame: Frame) -> None:
        try:
            self._sink.write(prediction, frame)
        except BrokenPipeError:
            self._lost += 1
            self.gone.set()
            with self._news:
                self._drop_waiting()
                self._news.notify_all()
        except Exception as error:  # a sink's library may raise anything, and the next prediction must be tried
            self._lost += 1
            self._log_error(error)
        else:
            self._written += 1
            self._error = ""
            if self._told:
                self._told = False
                _log.warning("%s takes predictions again; %d were lost", self._sink.name, self._lost)

    def _log_error(self, error: Exception) -> None:
        text = error.message if isinstance(error, EdgeResnetError) else f"{type(error).__name__}: {error}".partition("\n")[0]
        now = time.monotonic()
        if now - self._logged_s >= _QUIET_S:
            _log.warning("%s lost a prediction: %s", self._sink.name, text)
            self._logged_s, self._told = now, True
        self._error = text
