"""Reasons not to trust a measurement, each a line that says what was seen and what helps. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edge_resnet.device.power import PowerReading
from edge_resnet.measurement.bench.conditions import Conditions
from edge_resnet.measurement.bench.result import Metric
from edge_resnet.measurement.bench.timing import Limits, Timings, WarmUp

__all__ = ["caveats_of_heat", "caveats_of_machine", "caveats_of_run"]

#: Of the time of this process's cores, taken by others.
_OTHERS = 0.05
#: Of the highest clock seen.
_CLOCK = 0.9
#: By how much the end of a run is slower than its beginning, and the share of the run that counts as either.
_DRIFT, _END = 1.05, 5
#: Of the time, spent on measuring.
_OVERHEAD = 0.01
#: Samples in an end of the run below which its median says little.
_FEW = 20


def caveats_of_machine(conditions: Conditions) -> list[str]:
    """What the machine did beside."""
    found = []
    if conditions.others_share is not None and conditions.others_share > _OTHERS:
        found.append(f"other programs took {100 * conditions.others_share:.0f} % of the cores meanwhile: end them, measure again")
    for name, clocks, remedy in (
        ("processor", conditions.cpu_mhz, "a fixed governor or a fan helps"),
        ("GPU", conditions.gpu_mhz, "sudo jetson_clocks fixes it"),
    ):
        if clocks is not None and clocks[0] < _CLOCK * clocks[1]:
            found.append(f"the {name}'s clock moved between {clocks[0]} and {clocks[1]} MHz: {remedy}")
    if conditions.throttled:
        found.append(f"the processor slowed itself down {conditions.throttled} times because of heat")
    if conditions.swapped_pages:
        found.append(f"{conditions.swapped_pages} pages were swapped meanwhile: too little memory is free")
    return found


def caveats_of_heat(power: PowerReading | None) -> list[str]:
    """What sensors saw of throttling, and which of them failed."""
    if power is None:
        return []
    found = [f"throttled: {sign}" for sign in power.throttling or ()]
    found += [f"power: {note}" for note in power.notes]
    if power.source is not None and power.energy_mj is None:
        found.append(f"the energy is not known: {power.absent['energy_mj']}")
    return found


def caveats_of_run(timings: Timings, metric: Metric, warm_up: WarmUp, limits: Limits, overhead: float) -> list[str]:
    """What the samples say against themselves. ``overhead``: of the time, what measuring took."""
    samples, found = timings.samples_ns, []
    seconds = sum(samples) / 1e9
    if timings.interrupted:
        found.append(f"interrupted after {len(samples)} queries: a part of what was asked for")
    elif not timings.complete:
        found.append(f"ended after {seconds:.0f} s with {len(samples)} of {limits.queries} queries: --max-seconds allows more")
    if not metric.certain:
        found.append(f"{len(samples)} queries are too few for the interval of {metric.name}: --min-queries or --seconds")
    if not warm_up.settled:
        found.append(f"latencies had not settled after {warm_up.seconds:.0f} s of warm-up")
    slower = _drift(samples)
    if slower > _DRIFT:
        found.append(f"the end of the run was {100 * (slower - 1):.0f} % slower than its beginning: heat, or another program")
    if overhead > _OVERHEAD:
        found.append(f"measuring took {100 * overhead:.1f} % of the time: the queries are very short")
    return found


def _drift(samples: Sequence[int]) -> float:
    """The median of the last fifth over that of the first; 1 where they are few."""
    size = len(samples) // _END
    return median(samples[-size:]) / max(1, median(samples[:size])) if size >= _FEW else 1.0
