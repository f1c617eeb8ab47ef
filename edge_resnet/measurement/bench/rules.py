"""The scenarios of MLPerf Inference for edge devices, and how long each is measured. Measures nothing.

From loadgen's mlperf.conf and the submission checker: single-stream runs one image at a time and is judged by its p90;
multi-stream runs queries of 8 images and is judged by their p99; offline is judged by images per second. A submission takes at
least 600 s per scenario, and 1024 queries single-stream, 662 multi-stream or 24576 images offline, from 1024 loaded images;
``mlperf`` applies these minimums. The result is not a submission, which needs MLPerf's load generator, data and review.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import get_args

from edge_resnet.core.errors import ConfigError
from edge_resnet.measurement.bench.result import Scenario
from edge_resnet.measurement.bench.timing import Limits

__all__ = ["MULTI_STREAM", "BenchOptions", "batch_of", "limits_of"]

#: Images per query of multi-stream.
MULTI_STREAM = 8
_MLPERF_S, _MLPERF_OFFLINE_IMAGES, _MLPERF_POOL = 600.0, 24576, 1024
_QUERIES: Mapping[Scenario, int] = MappingProxyType({"single-stream": 1024, "multi-stream": 662, "offline": 24})
_MAX_PIXELS = 89_478_485


@dataclass(frozen=True)
class BenchOptions:
    """How to measure one scenario.

    A measurement takes at least ``seconds`` and ``min_queries`` (None: 1024 queries single-stream, 662 multi-stream, 24 batches
    offline), but at most ``max_seconds``. ``batch`` is the batch size of offline; None is the engine's largest. Queries draw from
    ``pool`` images in memory in an order given by ``seed``. ``frame`` is the (width, height) of the frames that the stages start
    with. ``starts`` is the number of processes started for the cold start. ``mlperf`` applies the minimums of a submission.
    ``power`` also measures power, temperatures and throttling.
    """

    scenario: Scenario = "single-stream"
    backend: str = "auto"
    seconds: float = 10.0
    min_queries: int | None = None
    max_seconds: float = 120.0
    batch: int | None = None
    seed: int = 0
    pool: int = 64
    frame: tuple[int, int] = (1920, 1080)
    starts: int = 3
    mlperf: bool = False
    power: bool = True

    def __post_init__(self) -> None:
        if self.scenario not in get_args(Scenario):
            raise ConfigError(f"no scenario is called {self.scenario}", hint=f"choose one of {', '.join(get_args(Scenario))}")
        if not 0 < self.seconds < float("inf") or not 0 < self.max_seconds < float("inf"):
            raise ConfigError("seconds and max-seconds must be finite and above 0", hint="10 and 120 seconds are usual")
        if min(self.min_queries or 1, self.batch or 1, self.pool) < 1 or 0 in (self.min_queries, self.batch):
            raise ConfigError("queries, images and batch must be at least 1", hint="1024 queries are usual")
        if min(self.seed, self.starts) < 0:
            raise ConfigError("the seed and the number of starts must be at least 0", hint="--seed 0")
        if min(self.frame) < 1 or self.frame[0] * self.frame[1] > _MAX_PIXELS:
            raise ConfigError(f"a frame of {self.frame[0]}x{self.frame[1]} pixels is not possible", hint="1920x1080 is usual")

    @property
    def images(self) -> int:
        """Number of images kept in memory."""
        return max(self.pool, _MLPERF_POOL) if self.mlperf else self.pool


def batch_of(options: BenchOptions, max_batch: int) -> int:
    """Images per query; ``max_batch`` is the engine's largest batch. Raises ConfigError for a batch size outside offline."""
    if options.scenario == "offline":
        return options.batch or max_batch
    if options.batch is not None:
        raise ConfigError(
            f"--batch applies to the offline scenario only, not to {options.scenario}",
            hint="edge-resnet bench --scenario offline --batch 32",
        )
    return 1 if options.scenario == "single-stream" else MULTI_STREAM


def limits_of(options: BenchOptions, batch: int) -> Limits:
    """When the measurement ends. With ``mlperf`` its minimums apply too, and ``max_seconds`` does not."""
    queries = options.min_queries or _QUERIES[options.scenario]
    if not options.mlperf:
        return Limits(options.seconds, queries, max(options.seconds, options.max_seconds))
    min_queries = ceil(_MLPERF_OFFLINE_IMAGES / batch) if options.scenario == "offline" else _QUERIES[options.scenario]
    return Limits(max(options.seconds, _MLPERF_S), max(queries, min_queries))
