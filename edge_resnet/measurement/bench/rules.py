"""MLPerf inference's scenarios for the edge, and how long each is measured. Knows no network.

From loadgen's mlperf.conf and the submission checker: single-stream is one image after another, judged by its p90; multi-stream
is queries of 8 images, judged by their p99; offline is images per second. For a submission each takes 600 s at least,
single-stream 1024 queries, multi-stream 662, offline 24576 images, all of 1024 loaded ones. That is what ``mlperf`` asks for
here. It does not make the result a submission: that takes their load generator, their data and their review.
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

#: Images in a query of multi-stream.
MULTI_STREAM = 8
_MLPERF_S, _MLPERF_OFFLINE_IMAGES, _MLPERF_POOL = 600.0, 24576, 1024
_QUERIES: Mapping[Scenario, int] = MappingProxyType({"single-stream": 1024, "multi-stream": 662, "offline": 24})
_MAX_PIXELS = 89_478_485


@dataclass(frozen=True)
class BenchOptions:
    """How to measure. ``seconds``, ``min_queries``: both are reached, but no more than ``max_seconds`` are taken; None: 1024
    queries in single-stream, 662 in multi-stream, 24 batches offline. ``batch``: of offline; None: the engine's largest.
    ``pool``: images in memory that queries take theirs from, by ``seed``. ``frame``: (width, height) of the frames that the
    stages begin with. ``starts``: processes that are started for the cold start. ``mlperf``: the minima of a submission.
    ``power``: watch power and heat meanwhile."""

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
            raise ConfigError("a measurement takes a number of seconds above 0", hint="--seconds 10 --max-seconds 120")
        if min(self.min_queries or 1, self.batch or 1, self.pool) < 1 or 0 in (self.min_queries, self.batch):
            raise ConfigError("queries, images and batch are whole numbers from 1", hint="--min-queries 1024")
        if min(self.seed, self.starts) < 0:
            raise ConfigError("a seed is 0 or more, and so are starts", hint="--seed 0")
        if min(self.frame) < 1 or self.frame[0] * self.frame[1] > _MAX_PIXELS:
            raise ConfigError(f"a frame of {self.frame[0]}x{self.frame[1]} cannot be had", hint="--frame 1920x1080")

    @property
    def images(self) -> int:
        """How many images are kept in memory."""
        return max(self.pool, _MLPERF_POOL) if self.mlperf else self.pool


def batch_of(options: BenchOptions, largest: int) -> int:
    """Images in a query. ``largest``: that the engine takes at once."""
    if options.scenario == "offline":
        return options.batch or largest
    if options.batch is not None:
        raise ConfigError(f"--batch is offline's; {options.scenario} has its own", hint="--scenario offline --batch 32")
    return 1 if options.scenario == "single-stream" else MULTI_STREAM


def limits_of(options: BenchOptions, batch: int) -> Limits:
    """When the measurement ends. MLPerf's minima hold beside larger wishes, and nothing cuts them short."""
    queries = options.min_queries or _QUERIES[options.scenario]
    if not options.mlperf:
        return Limits(options.seconds, queries, max(options.seconds, options.max_seconds))
    least = ceil(_MLPERF_OFFLINE_IMAGES / batch) if options.scenario == "offline" else _QUERIES[options.scenario]
    return Limits(max(options.seconds, _MLPERF_S), max(queries, least))
