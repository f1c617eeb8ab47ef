"""What a benchmark found, as a frozen record, and its file: written whole, read back only if whole. Measures nothing."""

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
#: Of the file. A reader refuses a newer one.
SCHEMA = 1
KIND: Literal["edge-resnet bench"] = "edge-resnet bench"
_AGAIN = "run edge-resnet bench --save again"


@dataclass(frozen=True)
class Metric:
    """The number that the scenario is judged by. ``ci95``: where it lies with 95 % by the run's own spread. ``certain``: there
    were samples enough for both bounds of that."""

    name: Literal["p90_ms", "p99_ms", "throughput_per_s"]
    value: float
    ci95: tuple[float, float]
    certain: bool


@dataclass(frozen=True)
class BenchResult:
    """One scenario, measured on one machine.

    ``images``: what was classified. ``batch``: images in a query. ``count``: queries measured; the latencies are theirs, in
    milliseconds, offline from the end of one batch to the end of the next. ``throughput_per_s``: images per second of the time
    that the samples cover. ``stages_ms``: medians of the way from a frame to the answer, for ``frame`` pixels and as many
    frames as ``batch``; what a backend does not tell is absent. ``cold_start_ms``: from the start of a process to its first
    answer, median. ``host_memory_mib``: the most that a process which only classifies took, ``gpu_memory_mib``: what the GPU's
    grew by. ``engine_bytes``: on the disk. ``overhead_share``: of the time measured, what measuring took: between queries,
    and processor time beside them. ``samples_us``: latencies in order, in microseconds, every ``samples_every``-th; the numbers
    above are of all of them. ``interrupted``: it is a part of what was asked for. ``power``: while queries were measured, of what
    ran the network or includes it; None where it was not wanted, and in files older than it. ``mj_per_image``: the mean power
    times the time per image; None where the reading's ``absent`` says why.
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
    """One result as an object, several as a list of them; a line for the samples, which are left out where not wanted."""
    texts = [_text(result if samples else replace(result, samples_us=())) for result in results]
    return texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]"


def write_results(path: Path, results: Sequence[BenchResult]) -> None:
    """Write the results with their samples, whole or not at all, over what was there. Raises BuildError."""
    write_whole(path, (to_json(results, samples=True) + "\n").encode())


def read_results(path: Path) -> tuple[BenchResult, ...]:
    """Every result in a file that bench wrote. Raises DataError where it is cut off, of a newer schema, or something else."""
    content = read_json(path, _AGAIN)
    records = content if isinstance(content, list) else [content]
    if not records:
        raise DataError(f"{path} holds no result", hint=_AGAIN)
    return tuple(parse_record(path, record, BenchResult, kind=KIND, schema=SCHEMA) for record in records)


def read_result(path: Path, scenario: Scenario | None = None) -> BenchResult:
    """The one result in a file, or that of the scenario. Raises DataError as ``read_results``, and where there is not one."""
    results = read_results(path)
    fitting = [result for result in results if scenario in (None, result.scenario)]
    if len(fitting) != 1:
        held = ", ".join(result.scenario for result in results)
        raise DataError(f"{path} holds {held}, not one of {scenario or 'a scenario'}", hint="name one that it holds once")
    return fitting[0]


def _text(result: BenchResult) -> str:
    record = asdict(result)
    samples = record.pop("samples_us")
    # Thousands of lines of one number each would bury the rest.
    return json.dumps(record, indent=2, allow_nan=False).removesuffix("\n}") + f',\n  "samples_us": {json.dumps(samples)}\n}}'
