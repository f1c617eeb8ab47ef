"""Frames, predictions, and the status of a run, its sources and its sinks. Does not know how any of them comes about."""

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
    """One image of a source: ``image`` (H, W, 3) uint8 BGR as captured, not to be changed.

    ``index``: in its source, from 0. ``captured_ns``: on the monotonic clock. ``source``: the file or camera, without password.
    ``position_ns``: the frame's time in a recording such as a video file, from its begin; None for a camera, whose frames have no
    other time than that of their capture.
    """

    image: npt.NDArray[np.uint8]
    index: int
    captured_ns: int
    source: str
    position_ns: int | None = None


@dataclass(frozen=True)
class Answer:
    """The class after smoothing, or ``unknown`` with ``class_index`` -1 if no class is probable enough.

    ``probability``: smoothed. ``changed``: whether it differs from the source's previous answer; true for the first one.
    """

    class_index: int
    label: str
    probability: float
    changed: bool


@dataclass(frozen=True)
class Prediction:
    """The classification of one frame.

    ``source``: where the frame came from. ``frame``: its index there. ``captured_ns``: monotonic clock at capture.
    ``age_ms``: capture to prediction. ``top``: best first. ``stages_ms``: preprocess, inference, postprocess. ``wall_ns``: wall
    clock at capture, since 1970. ``answer``: the class after smoothing, None outside a run.
    """

    source: str
    frame: int
    captured_ns: int
    age_ms: float
    top: tuple[ClassScore, ...]
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    wall_ns: int = 0
    answer: Answer | None = None


#: ``opening``: no frame yet; ``live``: frames arrive; ``stalled``: frames arrive, but they are identical or black;
#: ``reconnecting``: it failed and is being reopened; ``ended``: a file was read to its end; ``failed``: it is not retried.
SourceState: TypeAlias = Literal["opening", "live", "stalled", "reconnecting", "ended", "failed"]


@dataclass(frozen=True)
class SourceStatus:
    """``source``: its name, without password. ``frames``: read so far; each is ``predicted``, ``dropped`` in favour of a newer
    one, or still in flight. ``lost``: frames that the source could not deliver, or that do not hold the region of interest.
    ``reconnects``: how often it delivered again after a failure. ``frames_per_s``: over the last seconds. ``last_frame_age_s``:
    since the newest frame was captured, None before the first. ``error``: the last one, in a line.
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
    """``written``: predictions it took. ``lost``: those it did not, being too slow or failing. ``error``: the last one, in a
    line."""

    name: str
    written: int
    lost: int
    error: str


@dataclass(frozen=True)
class RunStatus:
    """``predictions``: since the start. ``latency``: from taking a frame to its prediction; ``age``: from its capture; of the
    last frames. ``stages_ms``: mean of each stage over the last frames. ``ready``: there was a prediction, and a source is live
    or has ended.
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
