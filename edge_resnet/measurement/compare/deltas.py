"""The changes between two measurements as records, and when a change counts. Does not measure and does not read files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_resnet.device.machine import DeviceInfo
from edge_resnet.measurement.accuracy import Accuracy, Evaluation, paired_drop
from edge_resnet.measurement.bench.result import BenchResult

__all__ = [
    "Comparison",
    "Delta",
    "Verdict",
    "accuracy_notes",
    "bench_deltas",
    "evaluation_deltas",
    "latency_notes",
    "machine_differences",
    "matching_results",
    "metric_delta",
    "top1_delta",
    "unpaired_notes",
]

#: ``worse`` and ``better``: by more than the tolerance and more than noise; ``unclear``: by more than the tolerance, but it may
#: be noise or the effect of other programs; ``same``: within the tolerance.
Verdict: TypeAlias = Literal["worse", "better", "unclear", "same"]
Interval: TypeAlias = tuple[float, float]

#: Fields of an evaluation whose change is noted.
_ACCURACY_NOTED = ("model", "images", "data", "backend", "precision", "simulated")
#: Fields of a benchmark whose change is noted.
_LATENCY_NOTED = ("backend", "precision", "artifact_digest", "rules", "images")
#: What a latency depends on: machines that differ in one of these are different machines.
_MACHINE = ("cpu", "architecture", "usable_cores", "board", "gpu", "compute_capability", "power_mode")
#: Share of the cores that other programs may take; above it a difference may be their effect, which no interval of a run shows.
_BUSY = 0.05
_UNPAIRED = "top-1 is not compared image by image: "


@dataclass(frozen=True)
class Delta:
    """The change of one figure: ``old`` and ``new`` with their 95 % intervals.

    ``change`` is in percent of the old value for latencies and rates and in points for accuracies; None where the old value is 0.
    ``change_ci95`` is its paired 95 % interval where both were measured on the same images, else None.
    """

    name: str
    unit: str
    old: float
    new: float
    old_ci95: Interval | None
    new_ci95: Interval | None
    change: float | None
    verdict: Verdict
    change_ci95: Interval | None = None


@dataclass(frozen=True)
class Comparison:
    """``notes``: what else differs, and the warnings of both measurements. ``regressed``: at least one judged figure is worse."""

    deltas: tuple[Delta, ...]
    notes: tuple[str, ...]
    regressed: bool


@dataclass(frozen=True)
class _Meter:
    """What an energy was measured with, and what it covers."""

    source: str | None = None
    covers: str | None = None

    def __str__(self) -> str:
        return f"{self.source} {self.covers}"


def evaluation_deltas(old: Evaluation, new: Evaluation, tolerance: float) -> list[Delta]:
    """Top-1, which is judged; top-5 and the agreement with FP32, which are only shown."""
    shown = (("top-5", old.top5, new.top5), ("agreement", old.agreement, new.agreement))
    return [
        top1_delta("top-1", old.accuracy, new.accuracy, tolerance),
        *(Delta(name, "%", before, after, None, None, after - before, "same") for name, before, after in shown),
    ]


def top1_delta(name: str, old: Accuracy, new: Accuracy, tolerance: float) -> Delta:
    """The change of top-1 in points.

    Two independent intervals of 500 images are 7 points wide each; on the same images far smaller changes are significant.
    """
    change, drop = new.top1 - old.top1, paired_drop(old, new)
    if drop is None:
        beyond_noise, change_ci95 = not _overlap(old.ci95, new.ci95), None
    else:
        beyond_noise, change_ci95 = drop.significant, (-drop.ci95[1], -drop.ci95[0])
    judged = _verdict(change, tolerance, beyond_noise=beyond_noise, higher_is_better=True)
    return Delta(name, "%", old.top1, new.top1, old.ci95, new.ci95, change, judged, change_ci95)


def bench_deltas(old: BenchResult, new: BenchResult, tolerance: float) -> list[Delta]:
    """The scenario's metric, which is judged; then the other figures, which are only shown."""
    deltas = [metric_delta(old, new, tolerance)]
    shown: list[tuple[str, str, float | None, float | None]] = [
        (stage, "ms", old.stages_ms[stage], new.stages_ms[stage]) for stage in old.stages_ms if stage in new.stages_ms
    ]
    shown += [
        ("cold start", "ms", old.cold_start_ms, new.cold_start_ms),
        ("host memory", "MiB", old.host_memory_mib, new.host_memory_mib),
        ("GPU memory", "MiB", old.gpu_memory_mib, new.gpu_memory_mib),
        ("engine", "MiB", old.engine_bytes / 2**20, new.engine_bytes / 2**20),
    ]
    if _meter(old) == _meter(new):
        shown.append(("energy per image", "mJ", old.mj_per_image, new.mj_per_image))
    for name, unit, before, after in shown:
        if before is not None and after is not None:
            change = _percent_change(before, after)
            deltas.append(Delta(f"{old.scenario} {name}", unit, before, after, None, None, change, "same"))
    return deltas


def metric_delta(old: BenchResult, new: BenchResult, tolerance: float) -> Delta:
    """The change of the metric that the scenario is judged by."""
    before, after = old.metric, new.metric
    is_latency = before.name.endswith("_ms")
    name = f"{old.scenario} {before.name.removesuffix('_ms').removesuffix('_per_s')}"
    change = _percent_change(before.value, after.value)
    busy = max(result.conditions.others_share or 0.0 for result in (old, new)) > _BUSY
    beyond_noise = not busy and not _overlap(before.ci95, after.ci95)
    judged = _verdict(change, tolerance, beyond_noise=beyond_noise, higher_is_better=not is_latency)
    unit = "ms" if is_latency else "images/s"
    return Delta(name, unit, before.value, after.value, before.ci95, after.ci95, change, judged)


def matching_results(old: Sequence[BenchResult], new: Sequence[BenchResult]) -> list[tuple[BenchResult, BenchResult]]:
    """Pairs of results with the same scenario, network and batch size."""
    return [(before, after) for before in old for after in new if _identity(before) == _identity(after)]


def machine_differences(old: DeviceInfo, new: DeviceInfo) -> list[str]:
    """How two machines differ in what a latency depends on, a line per field."""
    return [
        f"{name.replace('_', ' ')} was {getattr(old, name)}, is {getattr(new, name)}"
        for name in _MACHINE
        if getattr(old, name) != getattr(new, name)
    ]


def accuracy_notes(old: Evaluation, new: Evaluation) -> list[str]:
    """What else differs, and why the two are not compared image by image where they are not."""
    notes = [
        f"{name} was {getattr(old, name)}, is {getattr(new, name)}"
        for name in _ACCURACY_NOTED
        if getattr(old, name) != getattr(new, name)
    ]
    return [*notes, *unpaired_notes(old.accuracy, new.accuracy)]


def unpaired_notes(old: Accuracy, new: Accuracy) -> list[str]:
    """Why the two are not compared image by image; empty where they are."""
    if not (old.right and new.right):
        return [f"{_UNPAIRED}eval --save keeps the results per image, --json does not"]
    if old.data_digest != new.data_digest:
        return [f"{_UNPAIRED}the images differ"]
    if len(old.right) != len(new.right):
        return [f"{_UNPAIRED}one could not read an image that the other read"]
    return []


def latency_notes(old: BenchResult, new: BenchResult) -> list[str]:
    """What else differs, and the warnings of both."""
    found = [
        f"{name.replace('_', ' ')} was {str(getattr(old, name))[:16]}, is {str(getattr(new, name))[:16]}"
        for name in _LATENCY_NOTED
        if getattr(old, name) != getattr(new, name)
    ]
    if old.mj_per_image is not None and new.mj_per_image is not None and _meter(old) != _meter(new):
        found.append(f"energy was of {_meter(old)}, is of {_meter(new)}: not compared")
    for side, result in (("the old one", old), ("the new one", new)):
        found += [f"{side}: {warning}" for warning in result.warnings]
        found += [f"{side} was interrupted"] if result.interrupted else []
    return found


def _verdict(change: float | None, tolerance: float, *, beyond_noise: bool, higher_is_better: bool) -> Verdict:
    if change is None or abs(change) <= tolerance:
        return "same"
    if not beyond_noise:
        return "unclear"
    return "better" if (change > 0) == higher_is_better else "worse"


def _overlap(one: Interval, other: Interval) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _percent_change(old: float, new: float) -> float | None:
    """None where ``old`` is 0."""
    return 100 * (new - old) / old if old else None


def _identity(result: BenchResult) -> tuple[str, str, int]:
    return result.scenario, result.model, result.batch


def _meter(result: BenchResult) -> _Meter:
    """Energies of a GPU and of a whole board are not comparable."""
    return _Meter() if result.power is None else _Meter(result.power.source, result.power.covers)
