"""Measures an artifact on a backend, and makes the key of everything that the result depends on. Stores nothing."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core import __version__
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.packages import installed_version
from edge_resnet.core.records import Progress
from edge_resnet.device.machine import describe
from edge_resnet.images.imageset import ImageSet
from edge_resnet.measurement.bench.bench import bench
from edge_resnet.measurement.bench.result import BenchResult, to_json
from edge_resnet.measurement.bench.rules import BenchOptions
from edge_resnet.measurement.predictions import Predictions, predict_images
from edge_resnet.runtime.backend import backend_info, open_backend

__all__ = ["answers_key", "latency_key", "measure_answers", "measure_latency", "read_answers", "read_latency", "refuse_fp16"]

#: The properties of a machine that latencies depend on.
_MACHINE = ("cpu", "architecture", "usable_cores", "board", "gpu", "compute_capability", "power_mode", "tensorrt")
#: Minimum number of single-stream queries, enough for the interval of a p90, and of offline batches, for their spread.
_QUERIES, _BATCHES = 64, 8
#: A measurement takes at most so many times its seconds, even if that is too few queries.
_MAX = 6.0


def refuse_fp16(artifact: Artifact, backend: str) -> None:
    """Raise ConfigError if the backend would compute an FP16 artifact in FP32, so that there is nothing to measure."""
    if artifact.manifest.precision == "fp16" and backend_info(backend).fp16_as_fp32:
        raise ConfigError(f"{backend} computes FP16 networks in FP32: there is nothing to measure", hint="--backends tensorrt")


def measure_latency(artifact: Artifact, backend: str, batch: int, seconds: float, *, progress: Progress | None = None) -> Any:
    """Measure single-stream latency for a ``batch`` of 1, else offline throughput. Returns the content of a cell."""
    alone = batch == 1
    options = BenchOptions(
        scenario="single-stream" if alone else "offline",
        backend=backend,
        seconds=seconds,
        min_queries=_QUERIES if alone else _BATCHES,
        max_seconds=_MAX * seconds,
        batch=None if alone else batch,
        starts=1 if alone else 0,
    )
    return json.loads(to_json([bench(artifact, options, progress=progress)], samples=True))


def read_latency(content: Any) -> BenchResult:
    """Read the content of a cell."""
    result: BenchResult = TypeAdapter(BenchResult).validate_python(content)
    return result


def measure_answers(artifact: Artifact, images: ImageSet, backend: str, *, progress: Progress | None = None) -> Any:
    """Classify every image. Returns the content of a cell. Raises what the backend raises, and DataError for bad images."""
    with open_backend(artifact, backend) as network:
        (answers,) = predict_images([network], images, artifact.manifest.preprocess, progress=progress)
    return {"best": answers.best, "probability": answers.probability, "five": answers.in_top5}


def read_answers(content: Any) -> Predictions:
    """Read the content of a cell."""
    record = {**content, "in_top5": content["five"]}  # the key of the cells' files
    result: Predictions = TypeAdapter(Predictions).validate_python(record)
    return result


def latency_key(artifact: Artifact, backend: str, batch: int, seconds: float) -> dict[str, Any]:
    """Everything that a latency depends on."""
    return {**_key(artifact, backend), "batch": batch, "seconds": seconds}


def answers_key(artifact: Artifact, backend: str, data_digest: str) -> dict[str, Any]:
    """Everything that the predictions depend on, including the machine: other processors round differently."""
    return {**_key(artifact, backend), "data": data_digest}


def _key(artifact: Artifact, backend: str) -> dict[str, Any]:
    device = describe()
    return {
        "artifact": artifact.source_digest(),
        "precision": artifact.manifest.precision,
        "preprocess": repr(artifact.manifest.preprocess),
        "backend": [backend, installed_version(backend_info(backend).requirements[0].package)],
        "edge-resnet": __version__,
        "device": {name: getattr(device, name) for name in _MACHINE},
    }
