"""The online pipeline: frames → batches → predictions → sinks, all at the same time. Does not know about devices or formats.

One thread per camera (camerareader.py) and one for all files (filereader.py) read, one thread runs the network (worker.py), and
each sink has its own (sinkqueue.py). The loop here passes the results on and waits until one of the threads has news.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Preprocess
from edge_resnet.runtime.answers import AnswerRule
from edge_resnet.runtime.backend import Backend
from edge_resnet.runtime.postprocess import check_top, softmax, top_k
from edge_resnet.streaming.camerareader import CameraReader, CameraSpec, RetryPolicy
from edge_resnet.streaming.counters import RunCounters, RunSummary
from edge_resnet.streaming.filereader import FileReader, FrameReader, Taken
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinkqueue import SinkQueue
from edge_resnet.streaming.sinks import Sink
from edge_resnet.streaming.smoothing import AnswerSmoother, Smoothing
from edge_resnet.streaming.sources import FrameSource
from edge_resnet.streaming.worker import Batch, Roi, Worker

__all__ = ["CameraSpec", "RetryPolicy", "Roi", "RunCounters", "RunHooks", "RunOptions", "RunSummary", "Smoothing", "run"]

#: Batches in flight: one runs while the next is prepared.
_DEPTH = 2
#: Seconds between two turns of the loop at most: for the watchdog, and to notice readers that hang.
_TICK_S = 0.25
#: A batch that takes longer hangs, and the watchdog is no longer fed; seconds.
_HUNG_S = 30.0
#: After so many frames of cameras, and no prediction, that do not hold the region of interest the run ends.
_UNFIT = 30
#: How long before the network is expected to be free the next frame of a camera is prepared, seconds.
_SPARE_S = 0.001
#: Time limits from the stop on, seconds: for batches in flight; for these and the sinks, with cameras or after a signal; and for
#: the sinks of files.
_LAST_BATCH_S, _END_S, _SINKS_OF_FILES_S = 0.6, 1.1, 600.0


@dataclass(frozen=True)
class RunOptions:
    """``labels``: one per class. ``top``: classes per prediction. ``frames``, ``duration_s``: stop after as many, None for no
    limit.

    ``batch``: the maximum number of frames, of several cameras or of a file, classified at once. ``rate``: maximum frames per
    second and camera, None for no limit. ``roi``: the part of each frame that is classified. ``only_changes``: names of sinks
    that get a prediction only if its answer changed. ``temperature``: logits are divided by it before softmax.
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
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    only_changes: frozenset[str] = frozenset()
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_top(self.top)
        AnswerRule(self.temperature)  # checks it
        for name, limit in (("frames", self.frames), ("duration_s", self.duration_s), ("rate", self.rate)):
            if limit is not None and not limit > 0:
                raise ConfigError(f"{name} must be above 0, not {limit}", hint="leave it out for no limit")

    def with_rule(self, rule: AnswerRule) -> RunOptions:
        """These options with the temperature and the minimum confidence of an artifact's rule."""
        smoothing = replace(self.smoothing, min_confidence=rule.min_confidence)
        return replace(self, smoothing=smoothing, temperature=rule.temperature)


@dataclass(frozen=True)
class RunHooks:
    """How other threads observe and end a run. ``stop``: set it to end the run. ``counters``: for the status. ``alive``: called
    several times a second while the run is healthy. ``ready``: called once, when every source has been opened or is awaited."""

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

    The predictions go to every sink. Ends when all files have been read and there is no camera, at the options' limits, and on
    ``hooks.stop``, Ctrl-C, or when the reader of a sink's output is gone; then the batches in flight are completed and written,
    and the summary says interrupted. A camera that fails is reopened; a sink that fails loses that prediction. Raises what a file
    or the backend raises, after the predictions of earlier frames were written.
    """
    loop = _Loop(backend, sources, sinks, options, hooks or RunHooks())
    try:
        loop.run_to_the_end()
    except KeyboardInterrupt:
        loop.interrupted = True
    finally:
        loop.end()
    return loop.counters.summary(interrupted=loop.interrupted)


class _Loop:
    """Passes frames to the worker, and its batches to the sinks."""

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
        self._readers: list[FrameReader] = [CameraReader(camera, self._news, options.retry, options.rate) for camera in cameras]
        if files:
            self._readers.append(FileReader(files, self._news))
        self._live = bool(cameras)
        self._queues = [
            SinkQueue(sink, lossless=not self._live, only_changes=sink.name in options.only_changes) for sink in sinks
        ]
        self._worker = Worker(backend, options.preprocess, options.roi, self._news)
        self._batch = self._worker.batch_size(options.batch)
        #: Per reader, its source's name and smoother: each file starts with a new one.
        self._smoothers: dict[int, tuple[str, AnswerSmoother]] = {}
        self._started = self._taken = self._unfit = 0
        self._began = self._checked = time.monotonic()
        self.interrupted = False
        self.counters.start(self._readers, self._queues)

    def run_to_the_end(self) -> None:
        """Run until the sources end, a limit is reached, or the run is interrupted."""
        for reader in self._readers:
            reader.start()
        self._hooks.ready()
        while not self._is_through():
            with self._news:
                self._news.wait_for(self._has_news, timeout=_TICK_S)
                if self._early_s() > 0:
                    self._news.wait_for(self._must_act, timeout=self._early_s())
            self._tend()
            while (batch := self._worker.finished()) is not None:
                self._publish(batch)
            self.interrupted = self._hooks.stop.is_set() or any(queue.gone.is_set() for queue in self._queues)
            if self.interrupted:
                return
            if len(self._worker) < _DEPTH and self._early_s() <= 0:
                self._start()

    def end(self) -> None:
        """Stop reading, complete the batches in flight, and let the sinks finish."""
        began = time.monotonic()
        for reader in self._readers:
            reader.stop()
        deadline = began + _LAST_BATCH_S
        try:
            while len(self._worker) and time.monotonic() < deadline:
                with self._news:
                    self._news.wait_for(self._worker.is_done, timeout=max(0.0, deadline - time.monotonic()))
                batch = self._worker.finished()
                if batch is not None:
                    self._publish(batch)
        finally:
            self._worker.close(max(0.0, deadline - time.monotonic()))
            is_complete = not self._live and not self.interrupted  # then no prediction may be lost
            deadline = began + (_SINKS_OF_FILES_S if is_complete else _END_S)
            for queue in self._queues:
                queue.close(max(0.0, deadline - time.monotonic()))

    def _must_act(self) -> bool:
        return self._worker.is_done() or self._hooks.stop.is_set()

    def _has_news(self) -> bool:
        may_take = len(self._worker) < _DEPTH and self._left() > 0
        return self._must_act() or (may_take and any(reader.ready() for reader in self._readers))

    def _early_s(self) -> float:
        """Seconds by which it is too early to prepare a camera's next frame.

        While a frame waits for the network it ages, and a newer one may arrive.
        """
        if not self._live or len(self._worker) != 1 or self._worker.is_done():
            return 0.0
        return self._worker.left_s() - 1.25 * self._worker.preparing_s - _SPARE_S

    def _left(self) -> int:
        """The number of frames that may still be taken for a batch."""
        return self._batch if self._options.frames is None else min(self._batch, self._options.frames - self._taken)

    def _is_through(self) -> bool:
        if self._options.duration_s is not None and time.monotonic() - self._began >= self._options.duration_s:
            return True
        if len(self._worker):
            return False
        if self._left() == 0:
            return True
        return all([reader.over() for reader in self._readers])  # noqa: C419 - ask each one, since each may raise

    def _tend(self) -> None:
        now = time.monotonic()
        if now - self._checked < _TICK_S:
            return
        self._checked = now
        for reader in self._readers:
            reader.check()
        if self._worker.oldest_s() < _HUNG_S:
            self._hooks.alive()

    def _start(self) -> None:
        """Take frames from the readers, starting with another one each time, and start a batch."""
        taken: list[Taken] = []
        limit, count = self._left(), len(self._readers)
        for offset in range(count):
            reader = self._readers[(self._started + offset) % count]
            if len(taken) < limit:
                frames = reader.take(limit - len(taken))
                taken += [Taken(frame, reader) for frame in frames if self._is_usable(frame, reader)]
        if taken:
            self._started += 1
            self._taken += len(taken)
            self._worker.start(taken)

    def _is_usable(self, frame: Frame, reader: FrameReader) -> bool:
        """Whether a frame holds the region of interest; else its reader counts it.

        Raises ConfigError for a frame of a file, and if none of the first 30 of all cameras does: then the region is wrong.
        """
        roi = self._options.roi
        if roi is None or roi.fits(frame.image):
            return True
        try:
            roi.of(frame.image)
        except ConfigError as error:
            self._unfit += 1
            if self._unfit >= _UNFIT and self.counters.frames == 0 and len(self._worker) == 0:
                raise
            reader.refuse(frame, error)
        return False

    def _publish(self, batch: Batch) -> None:
        assert batch.logits is not None
        stages_ms = {
            "preprocess": (batch.prepared_ns - batch.taken_ns) / 1e6,
            "inference": (batch.done_ns - batch.started_ns) / 1e6,
        }
        for (frame, reader), logits in zip(batch.taken, batch.logits, strict=True):
            prediction = self._predict(frame, reader, logits, stages_ms)
            self.counters.add(prediction)
            reader.count_prediction()
            for queue in self._queues:
                queue.write(prediction, frame)

    def _predict(
        self, frame: Frame, reader: FrameReader, logits: npt.NDArray[np.float32], stages_ms: Mapping[str, float]
    ) -> Prediction:
        began_ns = time.perf_counter_ns()
        logits = AnswerRule(self._options.temperature).scaled(logits)
        probabilities = softmax(logits)
        top = top_k(logits, self._options.labels, self._options.top, probabilities)
        name, smoother = self._smoothers.get(id(reader), ("", None))
        if smoother is None or name != frame.source:
            smoother = AnswerSmoother(self._options.labels, self._options.smoothing)
            self._smoothers[id(reader)] = (frame.source, smoother)
        answer = smoother.next(probabilities)
        stages = {**stages_ms, "postprocess": (time.perf_counter_ns() - began_ns) / 1e6}
        age_ns = time.monotonic_ns() - frame.captured_ns
        wall_ns = time.time_ns() - age_ns
        return Prediction(frame.source, frame.index, frame.captured_ns, age_ns / 1e6, top, stages, wall_ns, answer)
