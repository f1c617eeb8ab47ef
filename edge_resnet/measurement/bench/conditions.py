"""What else the machine did during a measurement: other programs, clocks, swapping. Does not judge it.

Every ``root`` is the folder that stands for ``/``. What a machine does not report is None.
"""

from __future__ import annotations

import os
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.core.process import run_within
from edge_resnet.device.machine import gpu_clock

__all__ = ["Conditions", "ConditionsMonitor", "gpu_memory_mib"]

_ROOT = Path("/")
_SMI_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Conditions:
    """The conditions of a measurement; None where the machine does not report them.

    ``load_average`` is that of the minute before. ``others_share`` is the share, 0 to 1, of this process's cores that other
    programs or a hypervisor used. ``cpu_mhz`` and ``gpu_mhz`` (Jetson only) are the lowest and highest clock seen.
    ``swapped_pages`` counts pages in and out. ``throttled`` counts how often the processor slowed down because of heat.
    """

    load_average: float | None
    others_share: float | None
    cpu_mhz: tuple[int, int] | None
    gpu_mhz: tuple[int, int] | None
    swapped_pages: int | None
    throttled: int | None


class ConditionsMonitor:
    """Observes the machine from its creation to ``finish``; a ``sample`` takes well below a millisecond per core."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self._cores = sorted(os.sched_getaffinity(0))
        self._cpu_mhz: list[int] = []
        self._gpu_mhz: list[int] = []
        self._load = os.getloadavg()[0] if root == _ROOT else _first_number(_read(root / "proc/loadavg"))
        self._swapped, self._throttled = self._count_swapped(), self._count_throttled()
        self.sample()
        self._busy, self._own, self._at = self._busy_s(), _own_s(), time.monotonic()

    def sample(self) -> None:
        """Read the clocks."""
        folder = self._root / "sys/devices/system/cpu"
        clocks = [_read(folder / f"cpu{core}/cpufreq/scaling_cur_freq").strip() for core in self._cores]
        known = [int(clock) // 1000 for clock in clocks if clock.isdigit()]
        if known:
            # The fastest core, because idle cores lower their clocks.
            self._cpu_mhz.append(max(known))
        gpu = gpu_clock(self._root)
        if gpu is not None:
            self._gpu_mhz.append(gpu.now_mhz)

    def finish(self) -> Conditions:
        """The conditions since the monitor was created."""
        busy, own, seconds = self._busy_s(), _own_s(), time.monotonic() - self._at
        self.sample()
        others = None
        if busy is not None and self._busy is not None and seconds > 0:
            used = (busy - self._busy) - (own - self._own)
            others = min(1.0, max(0.0, used / (seconds * len(self._cores))))
        return Conditions(
            load_average=self._load,
            others_share=others,
            cpu_mhz=_range(self._cpu_mhz),
            gpu_mhz=_range(self._gpu_mhz),
            swapped_pages=_difference(self._swapped, self._count_swapped()),
            throttled=_difference(self._throttled, self._count_throttled()),
        )

    def _busy_s(self) -> float | None:
        """Seconds since boot that the cores of this process were busy, with any program (proc(5), /proc/stat)."""
        lines = re.findall(r"^cpu(\d+) (.+)$", _read(self._root / "proc/stat"), re.MULTILINE)
        ticks = 0
        for core, numbers in lines:
            if int(core) in self._cores:
                user, nice, system, _, _, irq, softirq, steal, *_ = (*map(int, numbers.split()), 0, 0, 0)
                ticks += user + nice + system + irq + softirq + steal
        return ticks / os.sysconf("SC_CLK_TCK") if ticks else None

    def _count_swapped(self) -> int | None:
        found = re.findall(r"^pswp(?:in|out) (\d+)$", _read(self._root / "proc/vmstat"), re.MULTILINE)
        return sum(map(int, found)) if found else None

    def _count_throttled(self) -> int | None:
        folder = self._root / "sys/devices/system/cpu"
        counts = [_read(folder / f"cpu{core}/thermal_throttle/core_throttle_count").strip() for core in self._cores]
        known = [int(count) for count in counts if count.isdigit()]
        return sum(known) if known else None


def gpu_memory_mib() -> int | None:
    """Memory in use on the first GPU by all programs; None where nvidia-smi does not report it, as on a Jetson."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = run_within(command, _SMI_TIMEOUT_S)
    except OSError:
        return None
    first = "" if done is None or done.code else done.stdout.partition("\n")[0].strip()
    return int(first) if first.isdigit() else None


def _own_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _range(values: list[int]) -> tuple[int, int] | None:
    return (min(values), max(values)) if values else None


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _first_number(text: str) -> float | None:
    match = re.match(r"[\d.]+", text)
    return float(match[0]) if match else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
