"""Temperatures, clocks and signs of throttling while something runs. Does not measure energy.

Sources: the thermal, devfreq, cpufreq and hwmon folders of Linux, the over-current counters of Jetson (soctherm_oc), NVML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_resnet.device.machine import Clock, gpu_clock
from edge_resnet.device.power.boards import Rail, matching, number, text
from edge_resnet.device.power.nvml import NvmlGpu
from edge_resnet.device.power.records import ClockRange, Temperature

__all__ = ["Heat", "ThermalMonitor"]

#: A zone that is off reports -256 °C; no board works below this temperature.
_OFFLINE_C = -100.0
_BUSY_PER_MILLE = 900
_FALLEN = 0.9
#: Cooling devices that slow down a processor, unlike fans.
_SLOWING = re.compile(r"throttle|balanced|cpufreq|devfreq|^Processor$")
_LOADS = ("sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load", "sys/class/devfreq/*.gpu/device/load")


@dataclass(frozen=True)
class Heat:
    """Temperatures, clocks and throttling so far; None if this machine does not report them.

    ``temperatures``: by thermal zone, without those that never gave a value. ``cpu_clock``: of the fastest core at each moment.
    ``throttling``: a line per sign of it.
    """

    temperatures: Mapping[str, Temperature]
    gpu_clock: ClockRange | None
    cpu_clock: ClockRange | None
    throttling: tuple[str, ...] | None


class ThermalMonitor:
    """Observes the machine by repeated sampling in one thread. ``gpu``: through NVML. Raises nothing."""

    def __init__(self, root: Path, rails: Sequence[Rail], gpu: NvmlGpu | None) -> None:
        self._root, self._rails, self._gpu = root, rails, gpu
        self._zones = tuple(_zones(root))
        self._cores = matching(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq")
        self._loads = [path for pattern in _LOADS for path in matching(root, pattern)]
        self._coolers = tuple(_coolers(root))
        self._events = tuple(_events(root))
        self._events_before = [_value(path) for _, path in self._events]
        self._has_devfreq = _gpu_clock(root) is not None
        self._temperatures: dict[str, Temperature] = {}
        self._gpu_mhz, self._cpu_mhz = _Range(), _Range()
        self._busiest_mhz = self._bound_mhz = 0
        self._signs: dict[str, str] = {}
        self._reasons_known = False
        # The first value of an alarm may be old: the sensor keeps it until it is read.
        self._alarms()

    def sample(self) -> None:
        """Sample everything once."""
        self._sample_temperatures()
        self._sample_clocks()
        for name in self._alarms():
            self._add_sign(name, f"{name}: the current exceeds the limit")
        for name, path in self._coolers:
            if (_value(path) or 0) > 0:
                self._add_sign(name, f"cooling device {name} is active")
        self._sample_nvml()

    def heat(self) -> Heat:
        """Temperatures, clocks and throttling so far."""
        return Heat(dict(self._temperatures), self._gpu_mhz.range(), self._cpu_mhz.range(), self._throttling())

    def _sample_temperatures(self) -> None:
        for zone, path in self._zones:
            millidegrees = _value(path)
            if millidegrees is not None:
                self._add_temperature(zone, millidegrees / 1000)

    def _sample_clocks(self) -> None:
        fastest = max((value for path in self._cores if (value := _value(path)) is not None), default=None)
        if fastest is not None:
            self._cpu_mhz.add(fastest / 1000)
        clock = _gpu_clock(self._root) if self._has_devfreq else None
        if clock is None:
            return
        self._gpu_mhz.add(clock.now_mhz)
        if clock.max_mhz < self._bound_mhz:
            self._add_sign("bound", f"the maximum of the GPU clock fell from {self._bound_mhz} to {clock.max_mhz} MHz")
        self._bound_mhz = max(self._bound_mhz, clock.max_mhz)
        # The clock of an idle GPU falls without throttling.
        loads = (_value(path) for path in self._loads)
        if next((load for load in loads if load is not None), 0) >= _BUSY_PER_MILLE:
            if clock.now_mhz < _FALLEN * self._busiest_mhz:
                self._add_sign("clock", f"the GPU clock fell from {self._busiest_mhz} to {clock.now_mhz} MHz under load")
            self._busiest_mhz = max(self._busiest_mhz, clock.now_mhz)

    def _throttling(self) -> tuple[str, ...] | None:
        for (name, path), before in zip(self._events, self._events_before, strict=True):
            now = _value(path)
            if before is not None and now is not None and now > before:
                self._signs[name] = f"{name} rose by {now - before}"
        alarms = any(rail.alarms for rail in self._rails)
        watched = alarms or self._coolers or self._events or self._has_devfreq or self._reasons_known
        return tuple(self._signs.values()) if watched else None

    def _sample_nvml(self) -> None:
        if self._gpu is None:
            return
        temperature = self._gpu.temperature_c()
        if temperature is not None:
            self._add_temperature(f"NVML {self._gpu.name}", temperature)
        clock = None if self._has_devfreq else self._gpu.clock_mhz()
        if clock is not None:
            self._gpu_mhz.add(clock)
        reasons = self._gpu.throttled_by()
        self._reasons_known |= reasons is not None
        for reason in reasons or ():
            self._add_sign(reason, f"NVML: {self._gpu.name} is throttled by {reason}")

    def _alarms(self) -> list[str]:
        raised = ((rail.name, path) for rail in self._rails for path in rail.alarms if _value(path))
        return [f"{name} ({path.name})" for name, path in raised]

    def _add_temperature(self, zone: str, degrees_c: float) -> None:
        if degrees_c > _OFFLINE_C:
            seen = self._temperatures.get(zone, Temperature(degrees_c, degrees_c, degrees_c))
            self._temperatures[zone] = Temperature(seen.before_c, degrees_c, max(degrees_c, seen.max_c))

    def _add_sign(self, name: str, line: str) -> None:
        self._signs.setdefault(name, line)


@dataclass
class _Range:
    min: float = field(default=float("inf"))
    max: float = 0.0
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.min, self.max = min(self.min, value), max(self.max, value)
        self.total += value
        self.count += 1

    def range(self) -> ClockRange | None:
        return ClockRange(self.min, self.total / self.count, self.max) if self.count else None


def _gpu_clock(root: Path) -> Clock | None:
    try:
        return gpu_clock(root)
    except OSError:
        return None


def _value(path: Path) -> int | None:
    try:
        return number(path)
    except (OSError, ValueError):
        return None


def _zones(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in matching(root, "sys/class/thermal/thermal_zone*"):
        name = text(folder / "type")
        # On Jetson boards the zone of the power chip is a constant.
        if name and not name.startswith("PMIC"):
            yield name, folder / "temp"


def _coolers(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in matching(root, "sys/class/thermal/cooling_device*"):
        name = text(folder / "type")
        if _SLOWING.search(name):
            yield name, folder / "cur_state"


def _events(root: Path) -> Iterator[tuple[str, Path]]:
    """Counters that rise when the hardware throttles: because of over-current on Orin, of heat on x86."""
    for folder in matching(root, "sys/class/hwmon/hwmon*"):
        if text(folder / "name") == "soctherm_oc":
            yield from ((f"over-current counter {path.name}", path) for path in matching(folder, "oc*_event_cnt"))
    path = root / "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    if path.exists():
        yield "package_throttle_count of the CPU", path
