"""The online pipeline: frames → batches → answers → sinks; it reads, predicts and writes at once. Knows no device and no format.

A thread per camera (live.py) and one for files (feeds.py) read, one thread runs the network (batches.py), each sink has its own
(queues.py). The loop here hands from one to the next and waits for whichever has news.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Preprocess
from edge_resnet.runtime.backend import Backend
from edge_resnet.runtime.postprocess import check_top, softmax, top_k
from edge_resnet.streaming.camerareader import CameraReader, CameraSpec, RetryPolicy
from edge_resnet.streaming.counters import RunCounters, RunSummary
from edge_resnet.streaming.filereader import FileReader, FrameFeed, Taken
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinkqueue import SinkQueue
from edge_resnet.streaming.sinks import Sink
from edge_resnet.streaming.smoothing import AnswerSmoother, Smoothing
from edge_resnet.streaming.sources import FrameSource
from edge_resnet.streaming.worker import Batch, Roi, Worker

__all__ = ["CameraSpec", "RetryPolicy", "Roi", "RunCounters", "RunHooks", "RunOptions", "RunSummary", "Smoothing", "run"]

#: Batches under way: one runs while the next is prepared.
_DEPTH = 2
#: The loop turns at least so often, seconds: for the watchdog, and for readers that hang.
_TICK_S = 0.25
#: A batch that takes longer has hung with its device: the watchdog is not fed any more.
_HUNG_S = 30.0
#: A camera's next frame is prepared so much before the network is expected to be free, seconds.
_SPARE_S = 0.001
#: What is left at the end gets so long: batches under way, and sinks after a signal.
_LAST_BATCH_S, _SINKS_S, _SINKS_OF_FILES_S = 0.8, 0.8, 600.0


@dataclass(frozen=True)
class RunOptions:
    """``labels``: one per class. ``top``: answers per frame. ``frames``, ``duration_s``: stop after as many, None for all.

    ``batch``: frames of several cameras, or of a file, that are classified at once. ``rate``: frames per second and camera, None
    for all. ``roi``: the part that is classified. ``only_changes``: sinks by name that get a prediction only where its answer
    changed.
    """

    preprocess: Preprocess
    labels: tuple[str, ...]
    top: int = 5
    frames: int | None = None
    duration_s: float | None = None
    batch: int = 1
    rate: float | None = None
    roi: Roi | None = None
    smoothing: Smoothing = field(default_factory=Smoothing)
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    only_changes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_top(self.top)
        for name, limit in (("frames", self.frames), ("duration_s", self.duration_s), ("rate", self.rate)):
            if limit is not None and not limit > 0:
                raise ConfigError(f"{name} must be above 0, not {limit}", hint="leave it out for no limit")


@dataclass(frozen=True)
class RunHooks:
    """Who looks on. ``stop``: set from elsewhere to end the run. ``counters``: what others read the status from. ``alive``: called
    again and again while the run is well; ``ready``: once, when every source is open or waited for."""

    stop: threading.Event = field(default_factory=threading.Event)
    counters: RunCounters = field(default_factory=RunCounters)
    alive: Callable[[], object] = lambda: None
    ready: Callable[[], object] = lambda: None


def run(
    backend: Backend,
    sources: Sequence[FrameSource | CameraSpec],
    sinks: Sequence[Sink],
    options: RunOptions,
    hooks: RunHooks | None = None,
) -> RunSummary:
    """Classify every frame of the files, one file after another, and the newest frames of all cameras at once.

    The predictions go to every sink. Ends when the files are through and there is no camera, at the options' limits, and where
    ``hooks.stop``, Ctrl-C or a reader of an output that goes away says so: then what is under way is answered and written, and
    the summary says interrupted. A camera that fails is opened again; a sink that fails loses that prediction. Raises what a file
    and the backend raise, after the answers to the frames before were written.
    """
    loop = _Loop(backend, sources, sinks, options, hooks or RunHooks())
    try:
        loop.turn_until_the_end()
    except KeyboardInterrupt:
        loop.interrupted = True
    finally:
        loop.end()
    return loop.counters.summary(interrupted=loop.interrupted)


class _Loop:
    """Hands frames to the worker and its batches to the sinks."""

    def __init__(
        self,
        backend: Backend,
        sources: Sequence[FrameSource | CameraSpec],
        sinks: Sequence[Sink],
        options: RunOptions,
        hooks: RunHooks,
    ) -> None:
        self._options, self._hooks, self.counters = options, hooks, hooks.counters
        self._news = threading.Condition()
        cameras = [source for source in sources if isinstance(source, CameraSpec)]
        files = [source for source in sources if not isinstance(source, CameraSpec)]
        self._feeds: list[FrameFeed] = [CameraReader(camera, self._news, options.patience, options.rate) for camera in cameras]
        if files:
            self._feeds.append(FileReader(files, self._news))
        self._live = bool(cameras)
        self._queues = [
            SinkQueue(sink, lossless=not self._live, only_changes=sink.name in options.only_changes) for sink in sinks
        ]
        self._worker = Worker(backend, options.preprocess, options.roi, self._news)
        self._batch = self._worker.at_once(options.batch)
        #: Per feed its source's name and answer: another file is another story.
        self._stable: dict[int, tuple[str, AnswerSmoother]] = {}
        self._started = self._taken = 0
        self._began = self._looked = time.monotonic()
        self.interrupted = False
        self.counters.start(self._feeds, self._queues)

    def turn_until_the_end(self) -> None:
        """Read, predict, write."""
        for feed in self._feeds:
            feed.start()
        self._hooks.ready()
        while not self._is_through():
            with self._news:
                self._news.wait_for(self._has_news, timeout=_TICK_S)
                if self._early_s() > 0:
                    self._news.wait_for(self._must_act, timeout=self._early_s())
            self._look_after()
            while (batch := self._worker.finished()) is not None:
                self._answer(batch)
            self.interrupted = self._hooks.stop.is_set() or any(queue.gone.is_set() for queue in self._queues)
            if self.interrupted:
                return
            if len(self._worker) < _DEPTH and self._early_s() <= 0:
                self._start()

    def end(self) -> None:
        """Stop reading, answer what is under way, let the sinks finish."""
        for feed in self._feeds:
            feed.stop()
        deadline = time.monotonic() + _LAST_BATCH_S
        try:
            while len(self._worker) and time.monotonic() < deadline:
                with self._news:
                    self._news.wait_for(self._worker.is_done, timeout=max(0.0, deadline - time.monotonic()))
                batch = self._worker.finished()
                if batch is not None:
                    self._answer(batch)
        finally:
            self._worker.close(max(0.0, deadline - time.monotonic()))
            patient = not self._live and not self.interrupted
            deadline = time.monotonic() + (_SINKS_OF_FILES_S if patient else _SINKS_S)
            for queue in self._queues:
                queue.close(max(0.0, deadline - time.monotonic()))

    def _must_act(self) -> bool:
        return self._worker.is_done() or self._hooks.stop.is_set()

    def _has_news(self) -> bool:
        may_take = len(self._worker) < _DEPTH and self._left() > 0
        return self._must_act() or (may_take and any(feed.ready() for feed in self._feeds))

    def _early_s(self) -> float:
        """Seconds by which it is too early to prepare a camera's next frame.

        One that waits for the network grows old, and a newer one may come.
        """
        if not self._live or len(self._worker) != 1 or self._worker.is_done():
            return 0.0
        return self._worker.left_s() - 1.25 * self._worker.preparing_s - _SPARE_S

    def _left(self) -> int:
        """Frames that may still be taken."""
        return self._batch if self._options.frames is None else min(self._batch, self._options.frames - self._taken)

    def _is_through(self) -> bool:
        if self._options.duration_s is not None and time.monotonic() - self._began >= self._options.duration_s:
            return True
        if len(self._worker):
            return False
        if self._left() == 0:
            return True
        return all([feed.over() for feed in self._feeds])  # noqa: C419 - each is asked, since each may raise

    def _look_after(self) -> None:
        now = time.monotonic()
        if now - self._looked < _TICK_S:
            return
        self._looked = now
        for feed in self._feeds:
            feed.check()
        if self._worker.oldest_s() < _HUNG_S:
            self._hooks.alive()

    def _start(self) -> None:
        """Take frames from every feed, another one first each time, and hand them over."""
        taken: list[Taken] = []
        limit, count = self._left(), len(self._feeds)
        for offset in range(count):
            feed = self._feeds[(self._started + offset) % count]
            if len(taken) < limit:
                taken += [Taken(frame, feed) for frame in feed.take(limit - len(taken))]
        if taken:
            self._started += 1
            self._taken += len(taken)
            self._worker.start(taken)

    def _answer(self, batch: Batch) -> None:
        assert batch.logits is not None
        stages_ms = {
            "preprocess": (batch.prepared_ns - batch.taken_ns) / 1e6,
            "inference": (batch.done_ns - batch.begun_ns) / 1e6,
        }
        for (frame, feed), logits in zip(batch.taken, batch.logits, strict=True):
            prediction = self._judged(frame, feed, logits, stages_ms)
            self.counters.add(prediction)
            feed.answered()
            for queue in self._queues:
                queue.write(prediction, frame)

    def _judged(
        self, frame: Frame, feed: FrameFeed, logits: npt.NDArray[np.float32], stages_ms: Mapping[str, float]
    ) -> Prediction:
        began_ns = time.perf_counter_ns()
        probabilities = softmax(logits)
        top = top_k(logits, self._options.labels, self._options.top, probabilities)
        name, stable = self._stable.get(id(feed), ("", None))
        if stable is None or name != frame.source:
            stable = AnswerSmoother(self._options.labels, self._options.smoothing)
            self._stable[id(feed)] = (frame.source, stable)
        answer = stable.next(probabilities)
        stages = {**stages_ms, "postprocess": (time.perf_counter_ns() - began_ns) / 1e6}
        age_ns = time.monotonic_ns() - frame.captured_ns
        wall_ns = time.time_ns() - age_ns
        return Prediction(frame.source, frame.index, frame.captured_ns, age_ns / 1e6, top, stages, wall_ns, answer)
