"""Reports made from a few numbers, for the tests of pages, charts and comparisons. No network runs."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from edge_resnet.core.records import Precision
from edge_resnet.core.statistics import wilson_interval
from edge_resnet.measurement.accuracy import KIND as EVALUATION
from edge_resnet.measurement.accuracy import SCHEMA as EVALUATION_SCHEMA
from edge_resnet.measurement.accuracy import Accuracy, Evaluation
from edge_resnet.measurement.bench.result import BenchResult, Metric
from edge_resnet.measurement.report.record import KIND, SCHEMA, ClassChange, Flip, MissingResult, Pair, Report, Row, Setup

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"

_RESULT: dict[str, Any] = {
    "schema_version": 1, "kind": "edge-resnet bench", "created": "2026-01-02T03:04:05Z", "scenario": "single-stream",
    "rules": "shorter than MLPerf's", "backend": "onnxruntime", "precision": "fp32", "model": "resnet18",
    "artifact": "artifacts/resnet18-fp32", "artifact_digest": "ab" * 32, "versions": {"edge-resnet": "0.1", "numpy": "2.0"},
    "device": {
        "cpu": "a processor", "architecture": "x86_64", "usable_cores": 2, "has_int8_dot_product": True,
        "memory_total_mib": 16000, "memory_available_mib": 8000, "board": None, "gpu": None, "gpu_failure": None,
        "driver": None, "compute_capability": None, "cuda": None, "tensorrt": None, "l4t": None, "jetpack": None,
        "power_mode": None, "python": "3.12", "os": "an OS",
    },
    "images": "random pixels", "seed": 0, "batch": 1, "count": 200, "seconds": 2.0, "mean_ms": 10.0, "p50_ms": 10.0,
    "p90_ms": 11.0, "p99_ms": 12.0, "p999_ms": 13.0, "max_ms": 14.0, "throughput_per_s": 100.0,
    "metric": {"name": "p90_ms", "value": 11.0, "ci95": (10.8, 11.3), "certain": True},
    "warm_up": {"queries": 50, "seconds": 1.0, "settled": True}, "frame": (1920, 1080), "stages_ms": {},
    "cold_start_ms": 900.0, "host_memory_mib": 250, "gpu_memory_mib": None, "engine_bytes": 46_000_000,
    "overhead_share": 0.001,
    "conditions": {"load_average": 0.1, "others_share": 0.01, "cpu_mhz": None, "gpu_mhz": None, "swapped_pages": 0,
                   "throttled": None},
    "warnings": (), "interrupted": False,
}  # fmt: skip


def bench_result(p90_ms: float = 11.0, **changes: Any) -> BenchResult:
    """A single-stream result whose samples have about this p90."""
    result: BenchResult = TypeAdapter(BenchResult).validate_python(_RESULT)
    draw = random.Random(round(1000 * p90_ms))
    samples = tuple(round(1000 * p90_ms * draw.lognormvariate(-0.13, 0.1), 1) for _ in range(200))
    metric = Metric("p90_ms", p90_ms, (0.97 * p90_ms, 1.04 * p90_ms), certain=True)
    result = replace(result, p50_ms=0.9 * p90_ms, p90_ms=p90_ms, p99_ms=1.2 * p90_ms, metric=metric, samples_us=samples)
    return replace(result, **changes)


def offline_result(batch: int, rate: float) -> BenchResult:
    """An offline result."""
    metric = Metric("throughput_per_s", rate, (0.98 * rate, 1.02 * rate), certain=True)
    return bench_result(8.0, scenario="offline", batch=batch, throughput_per_s=rate, metric=metric)


def accuracy(right: str, digest: str = "d") -> Accuracy:
    """An accuracy with these results per image."""
    hits = right.count("1")
    low, high = wilson_interval(hits, len(right))
    top1 = 100 * hits / len(right)
    return Accuracy(len(right), top1, min(100.0, top1 + 10), (100 * low, 100 * high), "images", digest, right)


def evaluation(right: str, digest: str = "d", **changes: Any) -> Evaluation:
    """An evaluation with these results per image."""
    one = accuracy(right, digest)
    found = Evaluation(
        EVALUATION_SCHEMA, EVALUATION, "resnet18", "ab" * 32, one.images, one.top1, one.top5, one.ci95, 97.0, one.top1,
        (0.0, 0.0), 1.0, "onnxruntime", "fp32", simulated=False, skipped=(), seconds=2.0, data=one.data, data_digest=digest,
        right=right,
    )  # fmt: skip
    return replace(found, **changes)


def row(label: str, p90_ms: float | None, right: str | None, precision: Precision = "fp32", backend: str = "onnxruntime") -> Row:
    """A row; None for what was not measured."""
    latency = None if p90_ms is None else bench_result(p90_ms, precision=precision, backend=backend)
    return Row(label, label.split()[0], precision, backend, latency, (), None if right is None else accuracy(right))


def answers(hits: int, images: int = 400, shift: int = 0) -> str:
    """Results per image with ``hits`` correct ones, starting at image number ``shift``."""
    return "".join("1" if (index - shift) % images < hits else "0" for index in range(images))


def flip(index: int = 0, kind: Any = "lost") -> Flip:
    """An image that is classified differently."""
    return Flip(f"image{index}.jpg", "tench", ("tench", 0.61), ("goldfish", 0.55), kind, PIXEL)


def report(*rows: Row, pairs: tuple[Pair, ...] = (), holes: tuple[MissingResult, ...] = (), **changes: Any) -> Report:
    """A report of these rows."""
    setup = Setup("400 images of a set", "100 images, none of them evaluated", {"Seconds a measurement": "5"})
    return replace(Report(SCHEMA, KIND, "Accuracy against latency", "2026-01-02T03:04:05Z", rows, pairs, holes, setup), **changes)


def usual() -> Report:
    """Two depths in two precisions and a missing result, with flips and classes."""
    rows = (
        row("resnet18 fp32", 18.0, answers(300)),
        replace(row("resnet18 int8", 9.0, answers(296), "int8"), batches=(offline_result(8, 130.0),)),
        row("resnet50 fp32", 52.0, answers(310)),
        row("resnet50 int8", 19.5, answers(305, shift=2), "int8"),
    )
    pairs = (
        Pair("resnet18 fp32", "resnet18 int8", 400, 96.0, 16, 6, 2, (flip(), flip(1, "won")), (ClassChange("tench", 10, 8, 5),)),
        Pair("resnet50 fp32", "resnet50 int8", 400, 95.0, 20, 7, 2, (flip(2, "both wrong"),)),
    )
    return report(*rows, pairs=pairs, holes=(MissingResult("resnet34 fp32", "no weights for it", "put them beside the others"),))
