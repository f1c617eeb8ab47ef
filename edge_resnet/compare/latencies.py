"""Two measurements of latency or throughput beside each other. Measures nothing and reads no file."""

from __future__ import annotations

from collections.abc import Sequence

from edge_resnet.bench.record import BenchResult
from edge_resnet.compare.record import Delta, overlap, percent, verdict
from edge_resnet.device.machine import DeviceInfo

__all__ = ["differences", "metric", "other_notes", "pairs", "scenario"]

#: What a latency depends on: two machines that differ in one of them are two machines.
_MACHINE = ("cpu", "architecture", "usable_cores", "board", "gpu", "compute_capability", "power_mode")
#: Share of the cores that other programs may take before a difference can be theirs: an interval knows only its own run's noise.
_BUSY = 0.05
_NOTED = ("backend", "precision", "artifact_digest", "rules", "images")


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


def other_notes(old: BenchResult, new: BenchResult) -> list[str]:
    """What else differs, and the warnings of either."""
    found = [
        f"{name.replace('_', ' ')} was {str(getattr(old, name))[:16]}, is {str(getattr(new, name))[:16]}"
        for name in _NOTED
        if getattr(old, name) != getattr(new, name)
    ]
    if old.mj_per_image is not None and new.mj_per_image is not None and _meter(old) != _meter(new):
        found.append(f"energy was of {' '.join(map(str, _meter(old)))}, is of {' '.join(map(str, _meter(new)))}: not compared")
    for side, result in (("the old one", old), ("the new one", new)):
        found += [f"{side}: {warning}" for warning in result.warnings]
        found += [f"{side} was interrupted"] if result.interrupted else []
    return found
