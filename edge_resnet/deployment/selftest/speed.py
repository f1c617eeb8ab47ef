"""How fast the precisions are on one backend, and the benchmark of a large network. Does not judge answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.records import Precision
from edge_resnet.deployment.selftest.check import Desk, Finding, WrongResultError
from edge_resnet.deployment.selftest.network import BATCH
from edge_resnet.measurement.bench.bench import bench
from edge_resnet.measurement.bench.rules import BenchOptions

__all__ = ["bench_lines", "compare_speed"]

#: How much of its copies and of its computation a single image may take on the clock of the caller.
_HOST_SHARE = 1.10


def compare_speed(milliseconds: Mapping[Precision, float], *, judge: bool) -> Finding:
    """Medians of a batch of eight. Raises WrongResultError if ``judge`` and INT8 < FP16 < FP32 does not hold."""
    figures = {f"{precision}_ms": round(value, 4) for precision, value in milliseconds.items()}
    told = ", ".join(f"{precision.upper()} {value:.2f} ms" for precision, value in milliseconds.items())
    ordered = [milliseconds[name] for name in ("int8", "fp16", "fp32") if name in milliseconds]
    rising = all(one < other for one, other in pairwise(ordered))
    if judge and not rising:
        raise WrongResultError(f"batch {BATCH}: {told}: each precision should be faster than the one before", figures)
    note = "" if judge or len(ordered) < 2 else " (not judged)"
    return Finding(f"batch {BATCH}: {told}{note}", figures)


def bench_lines(desk: Desk, backend: str, ran: Sequence[tuple[Precision, Artifact]], seconds: float) -> None:
    """Latency of one image and images per second, for each precision that runs, one after another."""
    for precision, artifact in ran:
        desk.check(f"{precision} bench", partial(_measured, artifact, backend, seconds))


def _measured(artifact: Artifact, backend: str, seconds: float) -> Finding:
    """Raises WrongResultError if on a GPU a single image waits much longer than it is copied and computed."""
    options = BenchOptions(backend=backend, seconds=seconds, min_queries=1, starts=0, power=False)
    single = bench(artifact, options)
    offline = bench(artifact, BenchOptions("offline", backend, seconds, min_queries=1, starts=0, power=False))
    figures = {
        "p50_ms": single.p50_ms,
        "p90_ms": single.p90_ms,
        "p99_ms": single.p99_ms,
        "offline_batch": offline.batch,
        "offline_per_s": offline.throughput_per_s,
        **{f"{stage}_ms": value for stage, value in single.stages_ms.items()},
    }
    told = (
        f"one image p50 {single.p50_ms:.3f}, p90 {single.p90_ms:.3f} ms; "
        f"{offline.throughput_per_s:.0f} images/s in batches of {offline.batch}"
    )
    stages = single.stages_ms
    if "compute" in stages:
        limit = _HOST_SHARE * stages["compute"] + stages.get("h2d", 0.0) + stages.get("d2h", 0.0)
        if single.p50_ms > limit:
            raise WrongResultError(f"{told}: one image should take at most {limit:.3f} ms", figures)
    return Finding(told, figures)
