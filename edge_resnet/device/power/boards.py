"""Power sensors in sysfs: the rails of a Jetson board (INA3221, INA238) and the RAPL counters of a CPU.

Does not measure time or add up energy. INA3221 is under hwmon on JetPack 5 and newer (Linux, hwmon/ina3221) and under iio on
JetPack 4; INA238 is on the carrier board of Thor.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.device.power.records import Covers, Meter, Read, Sample

__all__ = ["Rail", "find_rails", "matching", "number", "package_meter", "text", "total_meter"]

#: Longest content of a sysfs file that is read, in bytes.
_MAX_BYTES = 4096
#: Rails that supply everything else, the most inclusive first.
_INPUTS: tuple[tuple[str, Covers], ...] = (("VIN", "board input"), ("POM_5V_IN", "module"), ("VDD_IN", "module"))
#: Rails that add up to the module on boards without an input rail. VDDQ_VDD2_1V8AO of AGX Orin is part of VIN_SYS_5V0.
_SUMS = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Thor on a carrier board without INA238
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
_UNCONNECTED = re.compile(r"(^|_)NC\d*(_|$)")
#: Since Linux 5.10 only root may read the counters: they reveal to one process what another computes (CVE-2020-8694).
_UNREADABLE = (
    "only root may read the RAPL counters: measure as root, or, on a machine that you do not share, let others read them until "
    "the next start with sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
)


def package_meter(root: Path) -> tuple[Meter | None, str]:
    """A meter for all CPU packages together, or None and the reason."""
    # intel-rapl-mmio lists the same packages again. Zones within packages and "psys" are not added.
    folders = matching(root, "sys/class/powercap/intel-rapl:*")
    packages = [folder for folder in folders if text(folder / "name").startswith("package-")]
    if not packages:
        return None, "no RAPL counter"
    try:
        counters = [_Counter(folder / "energy_uj", number(folder / "max_energy_range_uj")) for folder in packages]
        for counter in counters:
            number(counter.path)
    except PermissionError:
        return None, _UNREADABLE
    except (OSError, ValueError):
        return None, "the RAPL counters give no values"
    names = "+".join(text(folder / "name") for folder in packages)
    return Meter(f"RAPL {names}", "CPU package", lambda: _open(counters)), ""


@dataclass(frozen=True)
class _Counter:
    path: Path
    range_uj: int


@contextmanager
def _open(counters: Sequence[_Counter]) -> Iterator[Read]:
    """Reads the sum of the counters; each may have wrapped around once since the last read (after about an hour at 60 W)."""
    last: list[int] | None = None
    total_uj = 0

    def read() -> Sample:
        nonlocal last, total_uj
        values = [number(counter.path) for counter in counters]
        for counter, value, before in zip(counters, values, last or values, strict=True):
            total_uj += value - before + (counter.range_uj if value < before else 0)
        last = values
        return Sample(energy_mj=total_uj / 1000)

    yield read


def matching(folder: Path, pattern: str) -> list[Path]:
    """The paths below ``folder`` that match the pattern, sorted; empty if it may not be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def number(path: Path) -> int:
    """The integer in a file. Raises OSError if it cannot be read (EAGAIN and ENODATA are common), ValueError if it is none."""
    return int(_bytes(path))


def text(path: Path) -> str:
    """The stripped text of a file; empty if it cannot be read."""
    try:
        return _bytes(path).decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:
        return ""


def _bytes(path: Path) -> bytes:
    # Path.read_text takes several times as long, and hundreds of files are read per second.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, _MAX_BYTES)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Rail:
    """A rail that can be read. ``alarms``: files that contain 1 while its current exceeds a limit."""

    name: str
    sensor: str
    read_w: Callable[[], float]
    alarms: tuple[Path, ...]


def find_rails(root: Path) -> tuple[Rail, ...]:
    """All connected rails that give a value now, one per name."""
    found: dict[str, Rail] = {}
    for rail in _named(root):
        if rail.name not in found and not _UNCONNECTED.search(rail.name) and _gives_value(rail):
            found[rail.name] = rail
    return tuple(found.values())


def total_meter(rails: Sequence[Rail]) -> tuple[Meter | None, str]:
    """A meter for the total power of the board or module, or None and the reason."""
    named = {rail.name: rail for rail in rails}
    for name, covers in _INPUTS:
        if name in named:
            return _meter((named[name],), covers), ""
    for names in _SUMS:
        if all(name in named for name in names):
            return _meter(tuple(named[name] for name in names), "module"), ""
    if not named:
        return None, "no INA3221 or INA238 sensor"
    return None, f"no known board has the rails {', '.join(named)}: none is its input, and their sum may count power twice"


def _meter(rails: Sequence[Rail], covers: Covers) -> Meter:
    source = f"{rails[0].sensor} {'+'.join(rail.name for rail in rails)}"
    return Meter(source, covers, lambda: nullcontext(lambda: Sample(power_w=sum(rail.read_w() for rail in rails))))


def _gives_value(rail: Rail) -> bool:
    try:
        rail.read_w()
    except (OSError, ValueError):
        return False
    return True


def _named(root: Path) -> Iterator[Rail]:
    for device in matching(root, "sys/bus/i2c/devices/*"):
        chip = text(device / "name")
        if chip.startswith("ina3221"):
            for folder in matching(device, "hwmon/hwmon*"):
                yield from _hwmon(folder)
            for folder in matching(device, "iio:device*"):
                yield from _iio(folder)
        elif chip == "ina238":
            for folder in matching(device, "hwmon/hwmon*"):
                yield Rail("VIN", "INA238", _scaled(folder / "power1_input", 1e-6), _alarms(folder, "1"))


def _hwmon(folder: Path) -> Iterator[Rail]:
    # in4 to in7 are shunt voltages, and in7_label names their sum.
    for channel in "123":
        name = text(folder / f"in{channel}_label")
        if name:
            power = _product(folder / f"in{channel}_input", folder / f"curr{channel}_input")
            yield Rail(name, "INA3221", power, _alarms(folder, channel))


def _iio(folder: Path) -> Iterator[Rail]:
    for channel in "012":
        name = text(folder / f"rail_name_{channel}")
        if name:
            yield Rail(name, "INA3221", _scaled(folder / f"in_power{channel}_input", 1e-3), ())


def _alarms(folder: Path, channel: str) -> tuple[Path, ...]:
    paths = (folder / f"curr{channel}_{kind}_alarm" for kind in ("max", "crit"))
    return tuple(path for path in paths if path.exists())


def _scaled(path: Path, scale: float) -> Callable[[], float]:
    return lambda: number(path) * scale


def _product(millivolt: Path, milliampere: Path) -> Callable[[], float]:
    return lambda: number(millivolt) * number(milliampere) / 1e6
