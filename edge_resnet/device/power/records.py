"""The records of power measurements. Does not know any sensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ClockRange", "Covers", "Energy", "Meter", "PowerReading", "Read", "Sample", "Temperature"]

#: ``board input``: module, carrier board and attached devices; ``module``: the Jetson module without its carrier board;
#: ``GPU``: the graphics card with its memory; ``CPU package``: all CPU packages, without memory and the rest of the machine.
Covers: TypeAlias = Literal["board input", "module", "GPU", "CPU package"]


@dataclass(frozen=True)
class Sample:
    """One sample of a meter: the power now, or the energy since some fixed moment, or both; None if it does not report it."""

    power_w: float | None = None
    energy_mj: float | None = None


#: Takes one sample. Raises OSError or ValueError if the sensor gives none.
Read: TypeAlias = Callable[[], Sample]


@dataclass(frozen=True)
class Meter:
    """A power that can be measured. ``source``: sensor and rail. ``open``: opens the sensor for one measurement."""

    source: str
    covers: Covers
    open: Callable[[], AbstractContextManager[Read]]


@dataclass(frozen=True)
class Energy:
    """The measurement of one meter. ``samples``: number of values; ``missed``: number of reads without a value.

    ``reason``: why ``energy_mj`` is None, else empty. ``mean_w`` and ``peak_w`` are those of the time with values.
    """

    source: str
    covers: Covers
    energy_mj: float | None
    mean_w: float | None
    peak_w: float | None
    samples: int
    missed: int
    reason: str


@dataclass(frozen=True)
class ClockRange:
    """Minimum, mean and maximum of a clock during the measurement, in MHz."""

    min_mhz: float
    mean_mhz: float
    max_mhz: float


@dataclass(frozen=True)
class Temperature:
    """A thermal zone during the measurement, in °C: first value, last value, maximum."""

    before_c: float
    after_c: float
    max_c: float


@dataclass(frozen=True)
class PowerReading:
    """Power and heat over ``seconds``. If a field is None, ``absent`` has the reason under the field's name.

    Energy, power, ``samples``, ``covers`` and ``source`` are those of the most inclusive meter; ``others`` has the rest.
    ``peak_w``: the highest sample, or, for an energy counter without power, the highest mean between two samples.
    ``temperatures``: by thermal zone. ``cpu_clock``: of the fastest core at each moment. ``throttling``: a line per sign of it;
    empty if it was observed and did not occur. ``power_mode``: of nvpmodel. ``notes``: problems during the measurement.
    ``sampling_cpu_s``: CPU time that the measurement itself took.
    """

    energy_mj: float | None
    mean_w: float | None
    peak_w: float | None
    seconds: float
    samples: int
    covers: Covers | None
    source: str | None
    others: tuple[Energy, ...]
    temperatures: Mapping[str, Temperature] | None
    gpu_clock: ClockRange | None
    cpu_clock: ClockRange | None
    throttling: tuple[str, ...] | None
    power_mode: str | None
    absent: Mapping[str, str]
    notes: tuple[str, ...]
    sampling_cpu_s: float

    def mj_per(self, count: int) -> float | None:
        """Energy in mJ per inference, or whatever was counted; None if the energy is unknown or ``count`` is zero."""
        return None if self.energy_mj is None or count < 1 else self.energy_mj / count
