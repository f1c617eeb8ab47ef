"""One measurement of an artifact on a backend, and the key of all that it depends on. Knows no order and keeps nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from edge_resnet import __version__
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.packages import installed_version
from edge_resnet.core.records import Progress
from edge_resnet.device.machine import describe
from edge_resnet.images.imageset import ImageSet
from edge_resnet.measurement.accuracy import Answers, answer
from edge_resnet.measurement.bench.bench import bench
from edge_resnet.measurement.bench.result import BenchResult, to_json
from edge_resnet.measurement.bench.rules import BenchOptions
from edge_resnet.runtime.backend import BACKENDS, open_backend

__all__ = ["answers_key", "latency_key", "measure_answers", "measure_latency", "read_answers", "read_latency", "refuse_fp16"]

#: What a latency depends on, of a machine.
_MACHINE = ("cpu", "architecture", "usable_cores", "board", "gpu", "compute_capability", "power_mode", "tensorrt")
#: Queries at least, image after image: enough for the interval of a p90. And batches, for their spread.
_QUERIES, _BATCHES = 64, 8
#: A measurement takes so many times its seconds at most, however few queries that is.
_MAX = 6.0


def refuse_fp16(artifact: Artifact, backend: str) -> None:
    """Raises ConfigError where the backend would compute an FP16 artifact in FP32, so that there is nothing to measure."""
    if artifact.manifest.precision == "fp16" and backend == "onnxruntime":
        raise ConfigError("ONNX Runtime computes FP16 networks in FP32: there is nothing to measure", hint="--backends tensorrt")


def measure_latency(artifact: Artifact, backend: str, batch: int, seconds: float, *, progress: Progress | None = None) -> Any:
    """Time image after image for a ``batch`` of 1, else offline in batches; as a cell keeps it."""
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
    """Back from a cell."""
    result: BenchResult = TypeAdapter(BenchResult).validate_python(content)
    return result


def measure_answers(artifact: Artifact, images: ImageSet, backend: str, *, progress: Progress | None = None) -> Any:
    """Classify every image; as a cell keeps it. Raises what the backend raises, and DataError where images cannot be read."""
    with open_backend(artifact, backend) as network:
        (answers,) = answer([network], images, artifact.manifest.preprocess, progress=progress)
    return asdict(answers)


def read_answers(content: Any) -> Answers:
    """Back from a cell."""
    result: Answers = TypeAdapter(Answers).validate_python(content)
    return result


def latency_key(artifact: Artifact, backend: str, batch: int, seconds: float) -> dict[str, Any]:
    """What a latency depends on."""
    return {**_key(artifact, backend), "batch": batch, "seconds": seconds}


def answers_key(artifact: Artifact, backend: str, data_digest: str) -> dict[str, Any]:
    """What the answers depend on: another processor rounds otherwise."""
    return {**_key(artifact, backend), "data": data_digest}


def _key(artifact: Artifact, backend: str) -> dict[str, Any]:
    device = describe()
    return {
        "artifact": artifact.source_digest(),
        "precision": artifact.manifest.precision,
        "preprocess": repr(artifact.manifest.preprocess),
        "backend": [backend, installed_version(BACKENDS[backend].module)],
        "edge-resnet": __version__,
        "device": {name: getattr(device, name) for name in _MACHINE},
    }
