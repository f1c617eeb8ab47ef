"""Two measurements beside each other: what changed, and whether it is worse than noise and tolerance allow. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edge_resnet.bench.record import BenchResult, read_results
from edge_resnet.device import DeviceInfo
from edge_resnet.errors import ConfigError, DataError

__all__ = ["Comparison", "Delta", "Verdict", "compare_files"]

#: ``worse`` and ``better``: by more than the tolerance, and the intervals say that it is not noise; ``unclear``: by more than the
#: tolerance, but the intervals overlap or other programs ran; ``same``: within the tolerance.
Verdict: TypeAlias = Literal["worse", "better", "unclear", "same"]

#: What a latency depends on: two machines that differ in one of them are two machines.
_MACHINE = ("cpu", "architecture", "usable_cores", "board", "gpu", "compute_capability", "power_mode")
#: Share of the cores that other programs may take before a difference can be theirs: an interval knows only its own run's noise.
_BUSY = 0.05
_NOTED = ("backend", "precision", "artifact_digest", "rules", "images")


@dataclass(frozen=True)
class Delta:
    """One figure of both: ``old``, ``new`` with their 95 % intervals, ``change`` in percent of the old one for latencies and
    rates, in points for accuracies; None where the old one is 0."""

    name: str
    unit: str
    old: float
    new: float
    old_ci95: tuple[float, float] | None
    new_ci95: tuple[float, float] | None
    change: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """``notes``: what else differs, and warnings of either measurement. ``regressed``: some figure that is judged is worse."""

    deltas: tuple[Delta, ...]
    notes: tuple[str, ...]
    regressed: bool


def compare_files(
    old: Path, new: Path, *, tolerance_percent: float = 5.0, tolerance_points: float = 0.5, force: bool = False
) -> Comparison:
    """Compare two files of ``bench --save``, scenario by scenario, or two of ``eval --json``.

    A latency or rate is worse where it changed by more than ``tolerance_percent`` and the two intervals do not overlap; an
    accuracy where it fell by more than ``tolerance_points`` and they do not. Raises DataError for files that are not of one kind
    or hold nothing in common, ConfigError for different machines or power modes unless ``force``.
    """
    for name, value in (("percent", tolerance_percent), ("points", tolerance_points)):
        if not 0 <= value < float("inf"):
            raise ConfigError(f"a tolerance of {value} {name} makes no sense", hint="0 or more")
    before, after = _accuracy(old), _accuracy(new)
    if (before is None) != (after is None):
        raise DataError(f"{old} and {new} are of two kinds", hint="compare two of bench --save, or two of eval --json")
    if before is not None and after is not None:
        return _accuracies(before, after, tolerance_points)
    return _latencies((read_results(old), old), (read_results(new), new), tolerance_percent, force=force)


def _latencies(
    old: tuple[Sequence[BenchResult], Path], new: tuple[Sequence[BenchResult], Path], tolerance: float, *, force: bool
) -> Comparison:
    pairs = [(before, after) for before in old[0] for after in new[0] if _kind(before) == _kind(after)]
    if not pairs:
        held = [
            ", ".join(f"{result.scenario} of {result.model}, batch {result.batch}" for result in side)
            for side in (old[0], new[0])
        ]
        raise DataError(f"{old[1]} holds {held[0]}, {new[1]} {held[1]}: nothing in common", hint="run the same bench for both")
    deltas: list[Delta] = []
    notes: dict[str, None] = {}  # in order, each once
    for before, after in pairs:
        machines = _differences(before.device, after.device)
        if machines and not force:
            raise ConfigError(
                f"the two are of different machines: {machines[0]}",
                hint="measure both on one, or --force to compare them all the same",
            )
        notes.update(dict.fromkeys([*machines, *_other_notes(before, after)]))
        deltas += _scenario(before, after, tolerance)
    return Comparison(tuple(deltas), tuple(notes), any(delta.verdict == "worse" for delta in deltas))


def _kind(result: BenchResult) -> tuple[str, str, int]:
    return result.scenario, result.model, result.batch


def _scenario(old: BenchResult, new: BenchResult, tolerance: float) -> list[Delta]:
    """The scenario's metric, which is judged; then the other figures, which are shown."""
    name = f"{old.scenario} {old.metric.name.removesuffix('_ms').removesuffix('_per_s')}"
    unit = "ms" if old.metric.name.endswith("_ms") else "images/s"
    higher_is_better = unit != "ms"
    change = _percent(old.metric.value, new.metric.value)
    judged = _verdict(
        (old.metric.value, old.metric.ci95), (new.metric.value, new.metric.ci95), change, tolerance, higher=higher_is_better
    )
    if judged in ("worse", "better") and max(_others(old), _others(new)) > _BUSY:
        judged = "unclear"
    deltas = [Delta(name, unit, old.metric.value, new.metric.value, old.metric.ci95, new.metric.ci95, change, judged)]
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
            deltas.append(Delta(f"{old.scenario} {what}", of, before, after, None, None, _percent(before, after), "same"))
    return deltas


def _meter(result: BenchResult) -> tuple[str | None, str | None]:
    """What the energy is of: a GPU's and a whole board's are two things."""
    return (None, None) if result.power is None else (result.power.source, result.power.covers)


def _others(result: BenchResult) -> float:
    return result.conditions.others_share or 0.0


def _percent(old: float, new: float) -> float | None:
    return 100 * (new - old) / old if old else None


def _verdict(
    old: tuple[float, tuple[float, float]],
    new: tuple[float, tuple[float, float]],
    change: float | None,
    tolerance: float,
    *,
    higher: bool,
) -> Verdict:
    if change is None or abs(change) <= tolerance:
        return "same"
    (_, (old_low, old_high)), (_, (new_low, new_high)) = old, new
    if new_low <= old_high and old_low <= new_high:
        return "unclear"
    return "better" if (change > 0) == higher else "worse"


def _differences(old: DeviceInfo, new: DeviceInfo) -> list[str]:
    return [
        f"{name.replace('_', ' ')} was {getattr(old, name)}, is {getattr(new, name)}"
        for name in _MACHINE
        if getattr(old, name) != getattr(new, name)
    ]


def _other_notes(old: BenchResult, new: BenchResult) -> list[str]:
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


def _accuracy(path: Path) -> dict[str, Any] | None:
    """What eval wrote, None where the file is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check the spelling") from error
    except ValueError as error:
        raise DataError(f"{path} is cut off, or no JSON: {error}", hint="copy it again, or measure again") from error
    keys = {"images", "top1", "top5", "ci95", "agreement", "fp32_top1"}
    return content if isinstance(content, dict) and keys <= content.keys() else None


def _accuracies(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> Comparison:
    try:
        deltas = [_points("top-1", old["top1"], new["top1"], (old["ci95"], new["ci95"]), tolerance)]
        deltas += [
            _points(name, old[key], new[key], None, tolerance) for name, key in (("top-5", "top5"), ("agreement", "agreement"))
        ]
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"this is not what edge-resnet eval writes: {error}", hint="run edge-resnet eval --json again") from error
    names = ("images", "backend", "precision", "simulated")
    notes = [f"{name} was {old.get(name)}, is {new.get(name)}" for name in names if old.get(name) != new.get(name)]
    return Comparison(tuple(deltas), tuple(notes), any(delta.verdict == "worse" for delta in deltas))


def _points(name: str, old: float, new: float, intervals: tuple[Any, Any] | None, tolerance: float) -> Delta:
    old, new = float(old), float(new)
    if intervals is None:
        return Delta(name, "%", old, new, None, None, new - old, "same")
    before, after = ((float(low), float(high)) for low, high in intervals)
    verdict = _verdict((old, before), (new, after), new - old, tolerance, higher=True)
    return Delta(name, "%", old, new, before, after, new - old, verdict)
