"""What measuring power takes and gives, as records. Knows no sensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ClockRange", "Covers", "Energy", "Meter", "PowerReading", "Read", "Sample", "Temperature"]

#: ``board input``: module, carrier and what hangs on it; ``module``: the Jetson module without its carrier board; ``GPU``: the
#: graphics card, memory included; ``CPU package``: all processor packages, without memory and the rest of the machine.
Covers: TypeAlias = Literal["board input", "module", "GPU", "CPU package"]


@dataclass(frozen=True)
class Sample:
    """One look at a meter: the power now, or the energy since some fixed moment, or both; None is what it does not give."""

    power_w: float | None = None
    energy_mj: float | None = None


#: Takes one sample. Raises OSError or ValueError where the sensor gives none.
Read: TypeAlias = Callable[[], Sample]


@dataclass(frozen=True)
class Meter:
    """A power that can be had here. ``source``: sensor and rail. ``open``: what to read it with, for one measurement."""

    source: str
    covers: Covers
    open: Callable[[], AbstractContextManager[Read]]


@dataclass(frozen=True)
class Energy:
    """What one meter gave. ``samples``: values it gave; ``missed``: times that it was asked and gave none.

    ``reason``: why ``energy_mj`` is None; empty where it is not. ``mean_w`` and ``peak_w`` are of the time it did answer.
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
    """Lowest, mean and highest of a clock while measured, in MHz."""

    min_mhz: float
    mean_mhz: float
    max_mhz: float


@dataclass(frozen=True)
class Temperature:
    """Of one thermal zone while measured, in °C: at the first look that it answered, at the last, and the highest."""

    before_c: float
    after_c: float
    max_c: float


@dataclass(frozen=True)
class PowerReading:
    """Power and heat over ``seconds``. A field that is None has its reason under its name in ``absent``.

    Energy, power, ``samples``, ``covers`` and ``source`` are those of the most inclusive meter; ``others`` holds the rest.
    ``peak_w``: the highest sample, or with a bare energy counter the highest mean between two. ``temperatures``: by thermal
    zone. ``cpu_clock``: of the fastest core at each moment. ``throttling``: each sign of it in a line; empty where it was
    watched for and not seen. ``power_mode``: nvpmodel's. ``notes``: what went wrong on the way. ``sampling_cpu_s``: processor
    time that measuring itself took.
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
        """Energy per inference, or whatever was counted, in mJ; None where energy is not known or nothing was counted."""
        return None if self.energy_mj is None or count < 1 else self.energy_mj / count
