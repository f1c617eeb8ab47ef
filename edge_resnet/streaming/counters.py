"""What a run has done so far, for its summary and for the status that other threads ask for. Decides nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_resnet.core.statistics import LatencyStats, summarise
from edge_resnet.streaming.filereader import FrameReader
from edge_resnet.streaming.records import Prediction, RunStatus, SinkStatus, SourceStatus
from edge_resnet.streaming.sinkqueue import SinkQueue

__all__ = ["NetworkName", "RunCounters", "RunSummary"]

#: How many of the newest latencies are kept for the summary's percentiles and for the status: a camera runs for months.
_KEPT, _RECENT = 100_000, 1_000
_WINDOW_S = 5.0


@dataclass(frozen=True)
class NetworkName:
    """What runs: the artifact's name, the backend's and the precision."""

    artifact: str = ""
    backend: str = ""
    precision: str = ""


@dataclass(frozen=True)
class RunSummary:
    """``frames``: predicted. ``read``: frames that the sources delivered; ``dropped``: those of them that were not predicted,
    because a newer one came. ``missed``: frames that a source could not deliver, or that do not hold the region of interest.
    ``latency``: from taking a frame to its prediction, over the last 100,000 frames. ``stages_ms``: mean of each stage.
    ``classes``: how often each label was the answer, ``unknown`` included. ``lost``: predictions that a sink did not take, by its
    name. ``interrupted``: ended by Ctrl-C, SIGTERM or the end of an output's reader.
    """

    frames: int
    read: int
    dropped: int
    missed: int
    seconds: float
    frames_per_s: float
    latency: LatencyStats
    stages_ms: Mapping[str, float]
    classes: Mapping[str, int]
    lost: Mapping[str, int]
    reconnects: int
    interrupted: bool


class RunCounters:
    """Counts predictions, and asks readers and queues for the rest. ``network``: what the status calls the network."""

    def __init__(self, network: NetworkName | None = None) -> None:
        self._network = network or NetworkName()
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._latency_ms: deque[float] = deque(maxlen=_KEPT)
        self._recent: deque[tuple[float, Prediction]] = deque(maxlen=_RECENT)
        self._stages: defaultdict[str, float] = defaultdict(float)
        self._classes: Counter[str] = Counter()
        self._readers: Sequence[FrameReader] = ()
        self._queues: Sequence[SinkQueue] = ()
        self.frames = 0

    def start(self, readers: Sequence[FrameReader], queues: Sequence[SinkQueue]) -> None:
        """Start the clock. ``readers`` and ``queues`` are what the status describes."""
        self._started = time.monotonic()
        self._readers, self._queues = readers, queues

    def add(self, prediction: Prediction) -> None:
        """Count a prediction."""
        with self._lock:
            self.frames += 1
            self._latency_ms.append(sum(prediction.stages_ms.values()))
            self._recent.append((time.monotonic(), prediction))
            for stage, milliseconds in prediction.stages_ms.items():
                self._stages[stage] += milliseconds
            self._classes[(prediction.answer or prediction.top[0]).label] += 1

    def status(self) -> RunStatus:
        """The current state; may be called by any thread."""
        with self._lock:
            recent, frames = list(self._recent), self.frames
        sources, sinks = self._sources(), self._sinks()
        now = time.monotonic()
        in_window = sum(now - at <= _WINDOW_S for at, _ in recent)
        window = min(_WINDOW_S, max(now - self._started, 1e-9))
        predictions = [prediction for _, prediction in recent]
        return RunStatus(
            artifact=self._network.artifact,
            backend=self._network.backend,
            precision=self._network.precision,
            uptime_s=now - self._started,
            ready=frames > 0 and any(source.state in ("live", "ended") for source in sources),
            predictions=frames,
            frames_per_s=in_window / window,
            latency=summarise([sum(prediction.stages_ms.values()) for prediction in predictions]),
            age=summarise([prediction.age_ms for prediction in predictions]),
            stages_ms=_means(predictions),
            sources=sources,
            sinks=sinks,
        )

    def summary(self, *, interrupted: bool) -> RunSummary:
        """The summary, once readers and queues are stopped."""
        seconds = time.monotonic() - self._started
        sources, lost = self._sources(), Counter[str]()
        for sink in self._sinks():
            lost[sink.name] += sink.lost
        return RunSummary(
            frames=self.frames,
            read=sum(source.frames for source in sources),
            dropped=sum(source.dropped for source in sources),
            missed=sum(source.lost for source in sources),
            seconds=seconds,
            frames_per_s=self.frames / seconds if seconds > 0 else 0.0,
            latency=summarise(self._latency_ms),
            stages_ms={stage: total / self.frames for stage, total in self._stages.items()},
            classes=dict(self._classes.most_common()),
            lost={name: count for name, count in lost.items() if count},
            reconnects=sum(source.reconnects for source in sources),
            interrupted=interrupted,
        )

    def _sources(self) -> tuple[SourceStatus, ...]:
        return tuple(status for reader in self._readers for status in reader.status())

    def _sinks(self) -> tuple[SinkStatus, ...]:
        return tuple(queue.status() for queue in self._queues)


def _means(predictions: Sequence[Prediction]) -> dict[str, float]:
    stages = predictions[-1].stages_ms if predictions else {}
    return {stage: sum(p.stages_ms.get(stage, 0.0) for p in predictions) / len(predictions) for stage in stages}
