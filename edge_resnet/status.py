"""What a run is doing at one moment, as records for those who watch it. Knows neither who fills nor who shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_resnet.core.statistics import LatencyStats

__all__ = ["RunStatus", "SinkStatus", "SourceState", "SourceStatus"]

#: ``opening``: no frame yet; ``live``: frames come; ``stalled``: none came for a while, or the same or a black one again and
#: again; ``reconnecting``: it failed and is tried again; ``ended``: a file is through; ``failed``: it is given up.
SourceState: TypeAlias = Literal["opening", "live", "stalled", "reconnecting", "ended", "failed"]


@dataclass(frozen=True)
class SourceStatus:
    """``source``: its name, without a password. ``frames``: read so far; each is ``predicted``, ``dropped`` because a newer one
    won, or still under way. ``lost``: frames that the source itself says it could not deliver. ``reconnects``: times that it
    delivered again after a failure. ``frames_per_s``: over the last seconds. ``last_frame_age_s``: since the newest frame was
    captured, None before the first. ``error``: the last, in a line.
    """

    source: str
    state: SourceState
    frames: int
    predicted: int
    dropped: int
    lost: int
    reconnects: int
    frames_per_s: float
    last_frame_age_s: float | None
    frozen: bool
    black: bool
    error: str


@dataclass(frozen=True)
class SinkStatus:
    """``written``: predictions it took. ``lost``: those it did not take, too slow or failed. ``error``: the last, in a line."""

    name: str
    written: int
    lost: int
    error: str


@dataclass(frozen=True)
class RunStatus:
    """``predictions``: since the start. ``latency``: frame at hand to answer; ``age``: capture to answer; of the last frames.
    ``stages_ms``: mean of each stage over the last frames. ``ready``: the engine answers and a source is live or through.
    """

    artifact: str
    backend: str
    precision: str
    uptime_s: float
    ready: bool
    predictions: int
    frames_per_s: float
    latency: LatencyStats
    age: LatencyStats
    stages_ms: Mapping[str, float]
    sources: tuple[SourceStatus, ...]
    sinks: tuple[SinkStatus, ...]
