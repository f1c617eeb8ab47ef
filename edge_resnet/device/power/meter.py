"""Measures power and heat while a block of code runs, and records what could not be measured and why. Knows no sensor names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from edge_resnet.core.errors import ConfigError
from edge_resnet.device.machine import power_mode
from edge_resnet.device.power.boards import find_rails, package_meter, total_meter
from edge_resnet.device.power.nvml import gpu_meters
from edge_resnet.device.power.records import Covers, Energy, Meter, PowerReading
from edge_resnet.device.power.sampling import Sampled, Sampler
from edge_resnet.device.power.thermal import Heat

__all__ = ["FoundMeters", "PowerMeter", "find_meters", "search_meters"]

_ROOT = Path("/")
#: The processors whose power a figure includes.
_INCLUDES: Mapping[Covers, tuple[str, ...]] = MappingProxyType(
    {"board input": ("GPU", "CPU"), "module": ("GPU", "CPU"), "GPU": ("GPU",), "CPU package": ("CPU",)}
)


@dataclass(frozen=True)
class FoundMeters:
    """``meters``: the most inclusive first. ``reasons``: one line for each kind that is absent."""

    meters: tuple[Meter, ...]
    reasons: tuple[str, ...]


def search_meters(root: Path = _ROOT, works: Literal["GPU", "CPU"] | None = None) -> FoundMeters:
    """Find the meters: a board's or module's input, then GPUs, then processor packages. Raises nothing.

    ``root`` stands for ``/`` where files are read; NVML is that of the running machine. ``works``: the processor that does the
    measured work. Meters that include it come first; if none does, no meter is returned, since an idle part says nothing about
    the work.
    """
    (board, no_board), (gpus, no_gpu), (packages, no_package) = total_meter(find_rails(root)), gpu_meters(), package_meter(root)
    meters = [meter for meter in (board, *gpus, packages) if meter]
    reasons = [reason for reason in (no_board, no_gpu, no_package) if reason]
    if works is None:
        return FoundMeters(tuple(meters), tuple(reasons))
    leading = [meter for meter in meters if works in _INCLUDES[meter.covers]]
    if not leading:
        idle = [f"{meter.source} covers only the {meter.covers}, but the {works} does the work" for meter in meters]
        return FoundMeters((), (*reasons, *idle))
    return FoundMeters((*leading, *(meter for meter in meters if meter not in leading)), tuple(reasons))


def find_meters(root: Path = _ROOT) -> tuple[Meter, ...]:
    """The meters of this machine, the most inclusive first; empty if it has none."""
    return search_meters(root).meters


class PowerMeter:
    """``with PowerMeter() as meter: work()``, then ``meter.reading()``.

    ``meters``: those to read, of which the first is the main one of the reading; or the result of ``search_meters``; by default
    it searches when the block is entered. ``root`` stands for ``/`` where files are read. ``hz``: samples per second. A sensor
    that fails or hangs during the measurement raises nothing but is noted in the reading. A meter can be used again. Readings of
    less than a second are rough: the sensors themselves average over up to a second.
    """

    def __init__(self, meters: Sequence[Meter] | FoundMeters | None = None, *, root: Path = _ROOT, hz: float = 10.0) -> None:
        if not 0 < hz <= 1000:
            raise ConfigError(f"a meter takes up to 1000 samples per second, not {hz:g}", hint="5 to 50 are usual")
        self._meters, self._root, self._hz = meters, root, hz
        self._found = FoundMeters((), ())
        self._sampler: Sampler | None = None

    def __enter__(self) -> PowerMeter:
        self._found = self._look()
        self._sampler = Sampler(self._found.meters, self._root, 1 / self._hz)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampler is not None:
            self._sampler.stop()

    def reading(self) -> PowerReading:
        """The measurement so far, or, after the block, all of it. Raises ConfigError before the block was entered."""
        if self._sampler is None:
            raise ConfigError(
                "no power was measured: the meter was never entered", hint="with PowerMeter() as meter: ..., then meter.reading()"
            )
        sampled = self._sampler.sampled()
        mode = power_mode(self._root)
        first = sampled.energies[0] if sampled.energies else None
        return PowerReading(
            energy_mj=first.energy_mj if first else None,
            mean_w=first.mean_w if first else None,
            peak_w=first.peak_w if first else None,
            seconds=sampled.seconds,
            samples=first.samples if first else 0,
            covers=first.covers if first else None,
            source=first.source if first else None,
            others=sampled.energies[1:],
            temperatures=sampled.heat.temperatures or None,
            gpu_clock=sampled.heat.gpu_clock,
            cpu_clock=sampled.heat.cpu_clock,
            throttling=sampled.heat.throttling,
            power_mode=mode,
            absent={**self._no_power(first), **_no_heat(sampled.heat), **_no_mode(mode)},
            notes=_notes(sampled),
            sampling_cpu_s=sampled.cpu_s,
        )

    def _look(self) -> FoundMeters:
        if self._meters is None:
            return search_meters(self._root)
        return (
            self._meters
            if isinstance(self._meters, FoundMeters)
            else FoundMeters(tuple(self._meters), ("no meter was requested",))
        )

    def _no_power(self, energy: Energy | None) -> dict[str, str]:
        if energy is None:
            reason = "; ".join(self._found.reasons)
            return dict.fromkeys(("energy_mj", "mean_w", "peak_w", "covers", "source"), reason)
        values = {"energy_mj": energy.energy_mj, "mean_w": energy.mean_w, "peak_w": energy.peak_w}
        return {name: energy.reason for name, value in values.items() if value is None}


def _no_heat(heat: Heat) -> dict[str, str]:
    reasons: Mapping[str, tuple[object, str]] = {
        "temperatures": (heat.temperatures or None, "no thermal zone can be read"),
        "gpu_clock": (heat.gpu_clock, "neither devfreq nor NVML reports a GPU clock"),
        "cpu_clock": (heat.cpu_clock, "cpufreq reports no clock"),
        "throttling": (heat.throttling, "not observable: no alarm, cooling device, counter or GPU clock"),
    }
    return {name: reason for name, (value, reason) in reasons.items() if value is None}


def _no_mode(mode: str | None) -> dict[str, str]:
    return {} if mode else {"power_mode": "no nvpmodel: not a Jetson, or its mode was never set"}


def _notes(sampled: Sampled) -> tuple[str, ...]:
    lines = [
        f"{energy.source} gave no value in {energy.missed} of {energy.missed + energy.samples} samples"
        for energy in sampled.energies
        if energy.missed
    ]
    others = [energy.reason for energy in sampled.energies[1:] if energy.reason]
    return (
        *lines,
        *others,
        *(("a sensor did not answer in time: the end of the measurement is missing",) if sampled.hung else ()),
    )
