"""The online pipeline: frame → preprocess → infer → best classes → sinks, one after another. Knows no device and no format."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from edge_resnet.backends import Backend, FrameBackend
from edge_resnet.frame import Frame
from edge_resnet.latency import summarise
from edge_resnet.postprocess import top_k
from edge_resnet.preprocess import preprocess_bgr
from edge_resnet.sinks import Sink
from edge_resnet.sources import FrameSource
from edge_resnet.spec import LatencyStats, Prediction, Preprocess

__all__ = ["RunOptions", "RunSummary", "run"]

#: Latencies kept for the percentiles, the newest: a camera that runs for months must not fill the memory.
_KEPT = 100_000


@dataclass(frozen=True)
class RunOptions:
    """``labels``: one per class. ``top``: answers per frame. ``frames``: stop after as many, None for all."""

    preprocess: Preprocess
    labels: tuple[str, ...]
    top: int = 5
    frames: int | None = None


@dataclass(frozen=True)
class RunSummary:
    """``latency``: per frame, from having it to having its answer, over the last 100,000 frames. ``stages_ms``: mean of each
    stage. ``classes``: how often each label was the best. ``interrupted``: ended by Ctrl-C, SIGTERM or a
    reader that went away."""

    frames: int
    dropped: int
    seconds: float
    frames_per_s: float
    latency: LatencyStats
    stages_ms: Mapping[str, float]
    classes: Mapping[str, int]
    interrupted: bool


def run(backend: Backend, sources: Sequence[FrameSource], sinks: Sequence[Sink], options: RunOptions) -> RunSummary:
    """Classify every frame of every source in order and hand each prediction to every sink.

    Ctrl-C, or the reader of an output that goes away, ends it cleanly: the frame at hand is given up, the summary says what was
    done. Raises what the rooms raise.
    """
    tally = _Tally()
    started = time.monotonic()
    interrupted = False
    try:
        for frame in islice(chain.from_iterable(sources), options.frames):
            prediction = _classify(backend, frame, options)
            for sink in sinks:
                sink.write(prediction, frame)
            tally.add(prediction)
    except (KeyboardInterrupt, BrokenPipeError):
        interrupted = True
    return tally.summary(time.monotonic() - started, sum(source.dropped for source in sources), interrupted=interrupted)


def _classify(backend: Backend, frame: Frame, options: RunOptions) -> Prediction:
    t0 = time.perf_counter_ns()
    if isinstance(backend, FrameBackend) and backend.resizes:
        t1 = t0  # preprocessing is a part of what the device does
        logits = backend.infer_frames([frame.image])
    else:
        images = preprocess_bgr(frame.image, options.preprocess)[None]
        t1 = time.perf_counter_ns()
        logits = backend.infer(images)
    t2 = time.perf_counter_ns()
    top = top_k(logits[0], options.labels, options.top)
    t3 = time.perf_counter_ns()
    stages = {"preprocess": (t1 - t0) / 1e6, "inference": (t2 - t1) / 1e6, "postprocess": (t3 - t2) / 1e6}
    age_ms = (time.monotonic_ns() - frame.captured_ns) / 1e6
    return Prediction(frame.source, frame.index, frame.captured_ns, age_ms, top, stages)


class _Tally:
    """What the summary is made of."""

    def __init__(self) -> None:
        self.frames = 0
        self._latency_ms: deque[float] = deque(maxlen=_KEPT)
        self._stages: defaultdict[str, float] = defaultdict(float)
        self._classes: Counter[str] = Counter()

    def add(self, prediction: Prediction) -> None:
        self.frames += 1
        self._latency_ms.append(sum(prediction.stages_ms.values()))
        for stage, milliseconds in prediction.stages_ms.items():
            self._stages[stage] += milliseconds
        self._classes[prediction.top[0].label] += 1

    def summary(self, seconds: float, dropped: int, *, interrupted: bool) -> RunSummary:
        return RunSummary(
            frames=self.frames,
            dropped=dropped,
            seconds=seconds,
            frames_per_s=self.frames / seconds if seconds > 0 else 0.0,
            latency=summarise(self._latency_ms),
            stages_ms={stage: total / self.frames for stage, total in self._stages.items()},
            classes=dict(self._classes.most_common()),
            interrupted=interrupted,
        )
