"""Energy of x86 processor packages, from RAPL's counters (Linux, powercap). Knows neither memory nor the rest of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.power.records import Meter, Read, Sample
from edge_resnet.power.sysfs import matching, number, text

__all__ = ["package_meter"]

#: Only root may read the counters since Linux 5.10: their fine grain tells one process what another computes (CVE-2020-8694).
_UNREADABLE = (
    "RAPL's counters are readable by root alone: measure as root, or let others read them until the next start with "
    "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj, on a machine that you share with nobody"
)


def package_meter(root: Path) -> tuple[Meter | None, str]:
    """The processor packages together, or None and the reason."""
    # intel-rapl-mmio shows the same packages a second time. Zones within packages and "psys" are not added.
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
        return None, "RAPL's counters give no values"
    names = "+".join(text(folder / "name") for folder in packages)
    return Meter(f"RAPL {names}", "CPU package", lambda: _open(counters)), ""


@dataclass(frozen=True)
class _Counter:
    path: Path
    range_uj: int


@contextmanager
def _open(counters: Sequence[_Counter]) -> Iterator[Read]:
    """Reads the sum of the counters; each may have begun anew once since the last read (at 60 W after an hour or so)."""
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
