"""The result of a benchmark as a record, and its JSON file. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from edge_resnet.core.errors import DataError
from edge_resnet.core.files import parse_record, read_json, write_whole
from edge_resnet.core.records import Precision
from edge_resnet.device.machine import DeviceInfo
from edge_resnet.device.power import PowerReading
from edge_resnet.measurement.bench.conditions import Conditions
from edge_resnet.measurement.bench.timing import WarmUp

__all__ = ["KIND", "SCHEMA", "BenchResult", "Metric", "Scenario", "read_result", "read_results", "to_json", "write_results"]

Scenario: TypeAlias = Literal["single-stream", "multi-stream", "offline"]
#: Version of the file format. A file with a newer one is refused.
SCHEMA = 1
KIND: Literal["edge-resnet bench"] = "edge-resnet bench"
_AGAIN = "run edge-resnet bench --save again"


@dataclass(frozen=True)
class Metric:
    """The number that a scenario is judged by, with its 95 % interval from the run's own spread.

    ``certain``: there were enough samples for both bounds.
    """

    name: Literal["p90_ms", "p99_ms", "throughput_per_s"]
    value: float
    ci95: tuple[float, float]
    certain: bool


@dataclass(frozen=True)
class BenchResult:
    """One scenario, measured on one machine.

    ``images`` names what was classified, ``batch`` images per query. ``count`` is the number of measured queries, whose
    latencies follow in milliseconds; offline a latency is the time from the end of one batch to the end of the next.
    ``throughput_per_s`` is in images per second over the time that the samples cover. ``stages_ms`` are median times of the
    stages from a frame to its prediction, for ``batch`` frames of size ``frame`` (width, height); stages that the backend does
    not report are absent. ``cold_start_ms`` is the median time from the start of a process to its first prediction.
    ``host_memory_mib`` is the peak memory of a process that only classifies, ``gpu_memory_mib`` the increase on the GPU,
    ``engine_bytes`` the size on disk. ``overhead_share`` is the share of the time that measuring took: between queries, and
    processor time beside them. ``samples_us`` are latencies in order, in microseconds, every ``samples_every``-th one; all other
    figures use every sample. ``interrupted``: the result is partial. ``power`` covers the measured queries; None if it was not
    requested, and in older files. ``mj_per_image`` is mean power times time per image; if it is None, ``power.absent`` says why.
    """

    schema_version: int
    kind: Literal["edge-resnet bench"]
    created: str
    scenario: Scenario
    rules: str
    backend: str
    precision: Precision
    model: str
    artifact: str
    artifact_digest: str
    versions: Mapping[str, str]
    device: DeviceInfo
    images: str
    seed: int
    batch: int
    count: int
    seconds: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    throughput_per_s: float
    metric: Metric
    warm_up: WarmUp
    frame: tuple[int, int]
    stages_ms: Mapping[str, float]
    cold_start_ms: float | None
    host_memory_mib: int | None
    gpu_memory_mib: int | None
    engine_bytes: int
    overhead_share: float
    conditions: Conditions
    warnings: tuple[str, ...]
    interrupted: bool
    samples_every: int = 1
    samples_us: tuple[float, ...] = field(default=(), repr=False)
    power: PowerReading | None = None
    mj_per_image: float | None = None


def to_json(results: Sequence[BenchResult], *, samples: bool) -> str:
    """One result as a JSON object, several as a list. ``samples=False`` leaves the samples empty."""
    texts = [_text(result if samples else replace(result, samples_us=())) for result in results]
    return texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]"


def write_results(path: Path, results: Sequence[BenchResult], *, force: bool = True) -> None:
    """Write the results with their samples. Without ``force`` a file that exists by then is kept. Raises BuildError."""
    write_whole(path, (to_json(results, samples=True) + "\n").encode(), force=force)


def read_results(path: Path) -> tuple[BenchResult, ...]:
    """All results in a file that bench wrote. Raises DataError for a truncated, newer or foreign file."""
    content = read_json(path, _AGAIN)
    records = content if isinstance(content, list) else [content]
    if not records:
        raise DataError(f"{path} holds no result", hint=_AGAIN)
    return tuple(parse_record(path, record, BenchResult, kind=KIND, schema=SCHEMA) for record in records)


def read_result(path: Path, scenario: Scenario | None = None) -> BenchResult:
    """The only result in a file, or the one of ``scenario``.

    Raises DataError as ``read_results`` does, and if it is not unique.
    """
    results = read_results(path)
    fitting = [result for result in results if scenario in (None, result.scenario)]
    if len(fitting) != 1:
        held = ", ".join(result.scenario for result in results)
        wanted = "one result" if scenario is None else f"one result of {scenario}"
        raise DataError(f"{path} holds {held}, not {wanted}", hint="name a scenario that it holds once")
    return fitting[0]


def _text(result: BenchResult) -> str:
    record = asdict(result)
    samples = record.pop("samples_us")
    # On one line, because thousands of lines with a number each would hide the rest.
    return json.dumps(record, indent=2, allow_nan=False).removesuffix("\n}") + f',\n  "samples_us": {json.dumps(samples)}\n}}'
