"""The way from a frame to its answer, stage by stage. Knows what a backend may tell of itself, and not how it finds it out."""

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

__all__ = ["TellsStages", "measure_stages"]

#: Rounds at least; the first is not counted.
_MIN = 5


@runtime_checkable
class TellsStages(Protocol):
    """A backend that knows where the time of a batch went."""

    def infer_timed(self, images: Images) -> tuple[Logits, Mapping[str, float]]:
        """As ``infer``, with milliseconds of ``h2d``, ``compute`` and ``d2h`` beside the logits."""
        ...


def measure_stages(
    network: Backend, artifact: Artifact, frame: ImageArray, batch: int, seconds: float, clock: Clock = time.perf_counter_ns
) -> dict[str, float]:
    """Medians in milliseconds, for ``batch`` times the frame (H, W, 3) uint8 BGR, over rounds of all stages in turn.

    ``preprocess`` on the processor, ``inference``, ``postprocess`` (softmax and the five best), ``total`` of these. With ``h2d``,
    ``compute`` and ``d2h`` where the backend tells them, and ``frame_inference``, from frames to logits, where it resizes itself.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    begun, rounds = clock(), 0
    while rounds < _MIN or clock() - begun < seconds * 1e9:
        rounds += 1
        for stage, milliseconds in _round(network, artifact, frame, batch, clock).items():
            found[stage].append(milliseconds)
    return {stage: median(values[1:]) for stage, values in found.items()}


def _round(network: Backend, artifact: Artifact, frame: ImageArray, batch: int, clock: Clock) -> dict[str, float]:
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
    if isinstance(network, TellsStages):
        stages.update(network.infer_timed(images)[1])
    if isinstance(network, PipelinedBackend) and network.resizes:
        before = clock()
        network.infer_frames([frame] * batch)
        stages["frame_inference"] = (clock() - before) / 1e6
    return stages
