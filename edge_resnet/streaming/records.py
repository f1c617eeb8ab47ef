"""One image from a source. Knows nothing of where it comes from or goes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.statistics import LatencyStats
from edge_resnet.runtime.postprocess import ClassScore

__all__ = ["Answer", "Frame", "Prediction", "RunStatus", "SinkStatus", "SourceState", "SourceStatus"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image: ``image`` (H, W, 3) uint8 BGR as captured, not to be changed.

    ``index``: in its source, from 0. ``captured_ns``: on the monotonic clock. ``source``: the file or camera, without a password.
    """

    image: npt.NDArray[np.uint8]
    index: int
    captured_ns: int
    source: str


@dataclass(frozen=True)
class Answer:
    """What is held to be seen: a class, or ``unknown`` with ``class_index`` -1 where no class is sure enough.

    ``probability``: smoothed. ``changed``: it differs from the answer to the source's frame before; the first one does.
    """

    class_index: int
    label: str
    probability: float
    changed: bool


@dataclass(frozen=True)
class Prediction:
    """What the network says of one frame.

    ``source``: where the frame came from. ``frame``: its index there. ``captured_ns``: monotonic clock at capture.
    ``age_ms``: capture to prediction. ``top``: best first. ``stages_ms``: preprocess, inference, postprocess. ``wall_ns``: wall
    clock at capture, since 1970. ``answer``: what the run holds to be seen after smoothing, None where nobody asked.
    """

    source: str
    frame: int
    captured_ns: int
    age_ms: float
    top: tuple[ClassScore, ...]
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    wall_ns: int = 0
    answer: Answer | None = None


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
