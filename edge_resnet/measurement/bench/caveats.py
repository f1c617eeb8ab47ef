"""Caveats of a measurement, each a line with what was observed and what helps. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edge_resnet.device.power import PowerReading
from edge_resnet.measurement.bench.conditions import Conditions
from edge_resnet.measurement.bench.result import Metric
from edge_resnet.measurement.bench.timing import Limits, Timings, WarmUp

__all__ = ["caveats_of_heat", "caveats_of_machine", "caveats_of_run"]

#: Largest share of this process's cores that other programs may use without a caveat.
_MAX_OTHERS = 0.05
#: Smallest ratio of the lowest to the highest clock without a caveat.
_MIN_CLOCK = 0.9
#: How much slower the last part of a run may be than the first; a part is a fifth of the run.
_MAX_DRIFT, _PARTS = 1.05, 5
#: Samples that a part needs for its median to mean anything.
_MIN_SAMPLES = 20
#: Largest share of the time that measuring may take.
_MAX_OVERHEAD = 0.01


def caveats_of_machine(conditions: Conditions) -> list[str]:
    """Caveats from what else the machine did: other programs, clocks, swapping."""
    found = []
    if conditions.others_share is not None and conditions.others_share > _MAX_OTHERS:
        found.append(f"other programs used {100 * conditions.others_share:.0f} % of the cores: stop them, then measure again")
    for name, clocks, remedy in (
        ("processor", conditions.cpu_mhz, "set a fixed governor or improve the cooling"),
        ("GPU", conditions.gpu_mhz, "sudo jetson_clocks fixes it"),
    ):
        if clocks is not None and clocks[0] < _MIN_CLOCK * clocks[1]:
            found.append(f"the {name} clock varied between {clocks[0]} and {clocks[1]} MHz: {remedy}")
    if conditions.throttled:
        found.append(f"the processor throttled {conditions.throttled} times because of heat")
    if conditions.swapped_pages:
        found.append(f"{conditions.swapped_pages} pages were swapped: too little memory is free")
    return found


def caveats_of_heat(power: PowerReading | None) -> list[str]:
    """Caveats from the sensors: throttling, and sensors that failed."""
    if power is None:
        return []
    found = [f"throttled: {sign}" for sign in power.throttling or ()]
    found += [f"power: {note}" for note in power.notes]
    if power.source is not None and power.energy_mj is None:
        found.append(f"the energy is unknown: {power.absent['energy_mj']}")
    return found


def caveats_of_run(timings: Timings, metric: Metric, warm_up: WarmUp, limits: Limits, overhead: float) -> list[str]:
    """Caveats from the samples. ``overhead`` is the share of the time that measuring took."""
    samples, found = timings.samples_ns, []
    seconds = sum(samples) / 1e9
    if timings.interrupted:
        found.append(f"interrupted after {len(samples)} queries: the result is partial")
    elif not timings.complete:
        found.append(f"stopped after {seconds:.0f} s with {len(samples)} of {limits.queries} queries, at its limit of time")
    if not metric.certain:
        found.append(f"{len(samples)} queries are too few for the interval of {metric.name}: more take --seconds")
    if not warm_up.settled:
        found.append(f"latencies had not settled after {warm_up.seconds:.0f} s of warm-up")
    drift = _drift(samples)
    if drift > _MAX_DRIFT:
        found.append(f"the end of the run was {100 * (drift - 1):.0f} % slower than its start: heat, or another program")
    if overhead > _MAX_OVERHEAD:
        found.append(f"measuring took {100 * overhead:.1f} % of the time: the queries are very short")
    return found


def _drift(samples: Sequence[int]) -> float:
    """The median of the last fifth of the samples over that of the first fifth; 1 for few samples."""
    size = len(samples) // _PARTS
    return median(samples[-size:]) / max(1, median(samples[:size])) if size >= _MIN_SAMPLES else 1.0
