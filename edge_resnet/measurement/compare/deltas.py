"""What a comparison is made of, as frozen records, and when a change is one. Measures nothing and reads no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_resnet.device.machine import DeviceInfo
from edge_resnet.measurement.accuracy import Accuracy, Evaluation, paired
from edge_resnet.measurement.bench.result import BenchResult

__all__ = [
    "Comparison",
    "Delta",
    "Interval",
    "Verdict",
    "accuracy_notes",
    "differences",
    "evaluations",
    "latency_notes",
    "metric",
    "overlap",
    "pairs",
    "percent",
    "scenario",
    "top1",
    "unpaired",
    "verdict",
]

#: ``worse`` and ``better``: by more than the tolerance, and the intervals say that it is not noise; ``unclear``: by more than the
#: tolerance, but it may be noise, or other programs ran; ``same``: within the tolerance.
Verdict: TypeAlias = Literal["worse", "better", "unclear", "same"]
Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Delta:
    """One figure of both: ``old``, ``new`` with their 95 % intervals, ``change`` in percent of the old one for latencies and
    rates, in points for accuracies; None where the old one is 0. ``change_ci95``: its 95 % interval where the two were measured
    on the same images, and are compared image by image; None where they were not."""

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
    """``notes``: what else differs, and warnings of either measurement. ``regressed``: some figure that is judged is worse."""

    deltas: tuple[Delta, ...]
    notes: tuple[str, ...]
    regressed: bool


def percent(old: float, new: float) -> float | None:
    """The change in percent of ``old``; None where that is 0."""
    return 100 * (new - old) / old if old else None


def verdict(change: float | None, tolerance: float, *, apart: bool, higher_is_better: bool) -> Verdict:
    """``apart``: it is more than noise."""
    if change is None or abs(change) <= tolerance:
        return "same"
    if not apart:
        return "unclear"
    return "better" if (change > 0) == higher_is_better else "worse"


def overlap(one: Interval, other: Interval) -> bool:
    """Whether the two intervals have a point in common."""
    return one[0] <= other[1] and other[0] <= one[1]


_ACCURACY_NOTED = ("model", "images", "data", "backend", "precision", "simulated")


_UNPAIRED = "top-1 is not compared image by image: "


def top1(name: str, old: Accuracy, new: Accuracy, tolerance: float) -> Delta:
    """The change in points. Two intervals of 500 images are 7 points wide and overlap; on the same images far less is told."""
    change, difference = new.top1 - old.top1, paired(old, new)
    apart = not overlap(old.ci95, new.ci95)
    between = None
    if difference is not None:
        low, high = difference.ci95  # of old minus new
        between = (-high, -low)
        apart = difference.significant
    judged = verdict(change, tolerance, apart=apart, higher_is_better=True)
    return Delta(name, "%", old.top1, new.top1, old.ci95, new.ci95, change, judged, between)


def evaluations(old: Evaluation, new: Evaluation, tolerance: float) -> list[Delta]:
    """Top-1, which is judged; top-5 and the agreement with FP32, which are shown."""
    shown = (("top-5", old.top5, new.top5), ("agreement", old.agreement, new.agreement))
    return [
        top1("top-1", old.accuracy, new.accuracy, tolerance),
        *(Delta(name, "%", before, after, None, None, after - before, "same") for name, before, after in shown),
    ]


def accuracy_notes(old: Evaluation, new: Evaluation) -> list[str]:
    """What else differs, and why the images are not paired where they are not."""
    notes = [
        f"{name} was {getattr(old, name)}, is {getattr(new, name)}"
        for name in _ACCURACY_NOTED
        if getattr(old, name) != getattr(new, name)
    ]
    return [*notes, *unpaired(old.accuracy, new.accuracy)]


def unpaired(old: Accuracy, new: Accuracy) -> list[str]:
    """Why the two are not compared image by image; nothing where they are."""
    if not (old.right and new.right):
        return [f"{_UNPAIRED}eval --save keeps what that needs, --json does not"]
    if old.data_digest != new.data_digest:
        return [f"{_UNPAIRED}the images are others"]
    if len(old.right) != len(new.right):
        return [f"{_UNPAIRED}one could not read an image that the other read"]
    return []


#: What a latency depends on: two machines that differ in one of them are two machines.
_MACHINE = ("cpu", "architecture", "usable_cores", "board", "gpu", "compute_capability", "power_mode")


#: Share of the cores that other programs may take before a difference can be theirs: an interval knows only its own run's noise.
_BUSY = 0.05


_LATENCY_NOTED = ("backend", "precision", "artifact_digest", "rules", "images")


def pairs(old: Sequence[BenchResult], new: Sequence[BenchResult]) -> list[tuple[BenchResult, BenchResult]]:
    """Those of one scenario, network and batch."""
    return [(before, after) for before in old for after in new if _kind(before) == _kind(after)]


def _kind(result: BenchResult) -> tuple[str, str, int]:
    return result.scenario, result.model, result.batch


def metric(old: BenchResult, new: BenchResult, tolerance: float) -> Delta:
    """What the scenario is judged by."""
    name = f"{old.scenario} {old.metric.name.removesuffix('_ms').removesuffix('_per_s')}"
    in_ms = old.metric.name.endswith("_ms")
    before, after = old.metric, new.metric
    change = percent(before.value, after.value)
    apart = not overlap(before.ci95, after.ci95) and max(_others(old), _others(new)) <= _BUSY
    judged = verdict(change, tolerance, apart=apart, higher_is_better=not in_ms)
    return Delta(name, "ms" if in_ms else "images/s", before.value, after.value, before.ci95, after.ci95, change, judged)


def scenario(old: BenchResult, new: BenchResult, tolerance: float) -> list[Delta]:
    """The scenario's metric, which is judged; then the other figures, which are shown."""
    deltas = [metric(old, new, tolerance)]
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
        shown.append(("energy an image", "mJ", old.mj_per_image, new.mj_per_image))
    for what, of, before, after in shown:
        if before is not None and after is not None:
            deltas.append(Delta(f"{old.scenario} {what}", of, before, after, None, None, percent(before, after), "same"))
    return deltas


def _meter(result: BenchResult) -> tuple[str | None, str | None]:
    """What the energy is of: a GPU's and a whole board's are two things."""
    return (None, None) if result.power is None else (result.power.source, result.power.covers)


def _others(result: BenchResult) -> float:
    return result.conditions.others_share or 0.0


def differences(old: DeviceInfo, new: DeviceInfo) -> list[str]:
    """In what their machines differ that a latency depends on."""
    return [
        f"{name.replace('_', ' ')} was {getattr(old, name)}, is {getattr(new, name)}"
        for name in _MACHINE
        if getattr(old, name) != getattr(new, name)
    ]


def latency_notes(old: BenchResult, new: BenchResult) -> list[str]:
    """What else differs, and the warnings of either."""
    found = [
        f"{name.replace('_', ' ')} was {str(getattr(old, name))[:16]}, is {str(getattr(new, name))[:16]}"
        for name in _LATENCY_NOTED
        if getattr(old, name) != getattr(new, name)
    ]
    if old.mj_per_image is not None and new.mj_per_image is not None and _meter(old) != _meter(new):
        found.append(f"energy was of {' '.join(map(str, _meter(old)))}, is of {' '.join(map(str, _meter(new)))}: not compared")
    for side, result in (("the old one", old), ("the new one", new)):
        found += [f"{side}: {warning}" for warning in result.warnings]
        found += [f"{side} was interrupted"] if result.interrupted else []
    return found
