"""A run's status and latencies in Prometheus's text format. Does not know about HTTP.

The names must not change: dashboards and alerts depend on them. Times are in seconds.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from edge_resnet.core import __version__
from edge_resnet.streaming.records import RunStatus, SourceState, SourceStatus
from edge_resnet.streaming.web.latest import Newest

__all__ = ["MEDIA_TYPE", "Clients", "Metrics"]

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: From a small network on a fast GPU to a large one on a small board.
_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0)
#: A camera alone delays a frame by 30 to 300 ms.
_AGE_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Clients:
    """``images``, ``events``: open streams of frames and of predictions. ``lost``: events that slow clients did not get."""

    images: int
    events: int
    lost: int


class Metrics:
    """``observe`` counts predictions, on the sink's thread; ``text`` is the response to a scrape, on the server's."""

    def __init__(self, status: Callable[[], RunStatus], clients: Callable[[], Clients]) -> None:
        self._status = status
        self._clients = clients
        self._latency = _Histograms(_LATENCY_S)
        self._age = _Histograms(_AGE_S)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def observe(self, newest: Newest) -> None:
        """Count one prediction's latency and age."""
        self._latency.add(newest.index, sum(newest.prediction.stages_ms.values()) / 1e3)
        self._age.add(newest.index, newest.prediction.age_ms / 1e3)

    def text(self) -> bytes:
        """All metrics in the text format 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: else the registry would collect all values to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics; called by the registry at each scrape."""
        status = self._status()
        names = _labels([source.source for source in status.sources])
        yield from _of_run(status)
        yield from _of_sources(status.sources, names)
        yield from _of_sinks(status)
        yield self._latency.family("edge_resnet_latency_seconds", "From taking a frame to its prediction", names)
        yield self._age.family("edge_resnet_age_seconds", "From the capture of a frame to its prediction", names)
        clients = self._clients()
        open_now = GaugeMetricFamily("edge_resnet_web_clients", "Open streams of the web page", labels=["kind"])
        open_now.add_metric(["images"], clients.images)
        open_now.add_metric(["events"], clients.events)
        yield open_now
        yield CounterMetricFamily("edge_resnet_web_events_lost", "Events that slow web clients did not get", value=clients.lost)


class _Histograms:
    """Counts per bucket and source."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts: dict[int, list[int]] = {}
        self._sums: dict[int, float] = {}

    def add(self, index: int, seconds: float) -> None:
        if not math.isfinite(seconds):
            return
        with self._lock:
            counts = self._counts.setdefault(index, [0] * (len(self._bounds) + 1))
            counts[bisect_left(self._bounds, seconds)] += 1
            self._sums[index] = self._sums.get(index, 0.0) + seconds

    def family(self, name: str, text: str, names: Sequence[str]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=["source"])
        bounds = [*map(str, self._bounds), "+Inf"]
        with self._lock:
            for index, label in enumerate(names):
                counts = self._counts.get(index, [0] * len(bounds))
                family.add_metric([label], list(zip(bounds, accumulate(counts), strict=True)), self._sums.get(index, 0.0))
        return family


def _of_run(status: RunStatus) -> Iterator[Metric]:
    info = GaugeMetricFamily("edge_resnet_build_info", "What is running", labels=["version", "artifact", "backend", "precision"])
    info.add_metric([__version__, *_labels([status.artifact]), status.backend, status.precision], 1)
    yield info
    yield GaugeMetricFamily("edge_resnet_uptime_seconds", "Seconds since the run started", value=status.uptime_s)
    yield GaugeMetricFamily("edge_resnet_ready", "1 if there are predictions and a source is live", value=int(status.ready))
    yield CounterMetricFamily("edge_resnet_predictions", "Predictions since the start", value=status.predictions)
    yield GaugeMetricFamily(
        "edge_resnet_frames_per_second", "Predictions per second over the last seconds", value=status.frames_per_s
    )


def _of_sources(sources: Sequence[SourceStatus], names: Sequence[str]) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[SourceStatus], float]], ...] = (
        ("edge_resnet_source_frames", "Frames read", lambda source: source.frames),
        ("edge_resnet_source_predicted", "Frames predicted", lambda source: source.predicted),
        ("edge_resnet_source_dropped", "Frames dropped in favour of a newer one", lambda source: source.dropped),
        ("edge_resnet_source_lost", "Frames that the source could not deliver", lambda source: source.lost),
        ("edge_resnet_source_reconnects", "Reconnects", lambda source: source.reconnects),
    )
    gauges: tuple[tuple[str, str, Callable[[SourceStatus], float]], ...] = (
        (
            "edge_resnet_source_frames_per_second",
            "Predictions per second over the last seconds",
            lambda source: source.frames_per_s,
        ),
        ("edge_resnet_source_last_frame_age_seconds", "Seconds since the newest frame was captured; NaN before the first", _age),
        ("edge_resnet_source_frozen", "1 if the frames are identical", lambda source: int(source.frozen)),
        ("edge_resnet_source_black", "1 if the frames are black", lambda source: int(source.black)),
    )
    for name, text, value in counters:
        counter = CounterMetricFamily(name, text, labels=["source"])
        for label, source in zip(names, sources, strict=True):
            counter.add_metric([label], value(source))
        yield counter
    for name, text, value in gauges:
        gauge = GaugeMetricFamily(name, text, labels=["source"])
        for label, source in zip(names, sources, strict=True):
            gauge.add_metric([label], value(source))
        yield gauge
    state = GaugeMetricFamily("edge_resnet_source_state", "1 for the current state of the source", labels=["source", "state"])
    for label, source in zip(names, sources, strict=True):
        for name in get_args(SourceState):
            state.add_metric([label, name], int(source.state == name))
    yield state


def _of_sinks(status: RunStatus) -> Iterator[Metric]:
    written = CounterMetricFamily("edge_resnet_sink_written", "Predictions a sink took", labels=["sink"])
    lost = CounterMetricFamily("edge_resnet_sink_lost", "Predictions a sink did not take", labels=["sink"])
    for label, sink in zip(_labels([sink.name for sink in status.sinks]), status.sinks, strict=True):
        written.add_metric([label], sink.written)
        lost.add_metric([label], sink.lost)
    yield written
    yield lost


def _age(source: SourceStatus) -> float:
    return math.nan if source.last_frame_age_s is None else source.last_frame_age_s


def _labels(names: Sequence[str]) -> list[str]:
    """Names as labels: encodable, and no two equal, since Prometheus would reject the whole scrape."""
    texts: list[str] = []
    for name in names:
        text = unique = name.encode("utf-8", "replace").decode()
        number = 2
        while unique in texts:
            unique = f"{text} #{number}"
            number += 1
        texts.append(unique)
    return texts
