"""Times the stages from a frame to its prediction. Does not know how a backend measures its own stages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Protocol, runtime_checkable

import numpy as np

from edge_resnet.artifact.folder import Artifact
from edge_resnet.images.preprocess import ImageArray, preprocess_bgr
from edge_resnet.measurement.bench.timing import Clock
from edge_resnet.runtime.backend import Backend, Images, Logits, PipelinedBackend
from edge_resnet.runtime.postprocess import top_k

__all__ = ["StageTimingBackend", "measure_stages"]

#: Fewest rounds; the first is not counted.
_MIN_ROUNDS = 5


@runtime_checkable
class StageTimingBackend(Protocol):
    """A backend that reports where the time of a batch went."""

    def infer_timed(self, images: Images) -> tuple[Logits, Mapping[str, float]]:
        """Run ``infer``; also returns the milliseconds of ``h2d``, ``compute`` and ``d2h``."""
        ...


def measure_stages(
    network: Backend, artifact: Artifact, frame: ImageArray, batch: int, seconds: float, clock: Clock = time.perf_counter_ns
) -> dict[str, float]:
    """Median milliseconds of each stage for ``batch`` copies of ``frame`` (H, W, 3) uint8 BGR, over rounds of all stages.

    The stages are ``preprocess`` on the CPU, ``inference``, ``postprocess`` (softmax and the five best classes) and their
    ``total``; ``h2d``, ``compute`` and ``d2h`` if the backend reports them; ``frame_inference``, from frames to logits, if it
    preprocesses frames itself.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    started, rounds = clock(), 0
    while rounds < _MIN_ROUNDS or clock() - started < seconds * 1e9:
        rounds += 1
        for stage, milliseconds in _time_stages(network, artifact, frame, batch, clock).items():
            found[stage].append(milliseconds)
    return {stage: median(values[1:]) for stage, values in found.items()}


def _time_stages(network: Backend, artifact: Artifact, frame: ImageArray, batch: int, clock: Clock) -> dict[str, float]:
    stamps = [clock()]
    images = np.stack([preprocess_bgr(frame, artifact.manifest.preprocess) for _ in range(batch)])
    stamps.append(clock())
    logits = network.infer(images)
    stamps.append(clock())
    for row in logits:
        top_k(row, artifact.labels)
    stamps.append(clock())
    names = ("preprocess", "inference", "postprocess")
    stages = {name: (after - before) / 1e6 for name, before, after in zip(names, stamps, stamps[1:], strict=False)}
    stages["total"] = (stamps[-1] - stamps[0]) / 1e6
    if isinstance(network, StageTimingBackend):
        stages.update(network.infer_timed(images)[1])
    if isinstance(network, PipelinedBackend) and network.resizes:
        before = clock()
        network.infer_frames([frame] * batch)
        stages["frame_inference"] = (clock() - before) / 1e6
    return stages
