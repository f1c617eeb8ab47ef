"""The thread that samples meters and heat at a fixed rate. Does not know any sensor by name and judges nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.device.power.boards import find_rails
from edge_resnet.device.power.nvml import open_gpu
from edge_resnet.device.power.records import Energy, Meter, Read, Sample
from edge_resnet.device.power.thermal import Heat, ThermalMonitor

__all__ = ["Figures", "Integral", "Sampled", "Sampler"]

#: The energy counts as unknown if values are missing for more than this share of the time.
_UNMEASURED_SHARE = 0.05
#: A sensor that hangs in the kernel cannot be interrupted: after this time it is abandoned.
_MAX_WAIT_S = 2.0
#: NVML takes seconds to open if the driver was asleep.
_MAX_START_S = 10.0
_MAX_GAP_S = 1.0
#: Temperatures and clocks are sampled less often: they change slowly, and there are many.
_HEAT_PERIOD_S = 0.25
_NO_HEAT = Heat({}, None, None, None)


@dataclass(frozen=True)
class Figures:
    """``energy_mj`` is None if values are missing for more than 5 % of the time; ``measured_s`` is the time they cover."""

    energy_mj: float | None
    mean_w: float | None
    peak_w: float | None
    samples: int
    missed: int
    measured_s: float


class Integral:
    """Integrates samples in the order of their times, in constant memory.

    ``max_gap_s``: the time between two powers further apart counts as unmeasured. ``min_interval_s``: two values of a counter
    closer than this give no peak, since counters move in steps.
    """

    def __init__(self, *, max_gap_s: float, min_interval_s: float) -> None:
        self._max_gap_s, self._min_interval_s = max_gap_s, min_interval_s
        self._last: tuple[float, Sample] | None = None
        self._energy_mj = self._measured_s = 0.0
        self._peak_w: float | None = None
        self._samples = self._missed = 0

    def add(self, at_s: float, sample: Sample | None) -> None:
        """Add the sample of this moment; None if the sensor gave no value."""
        if sample is None:
            self._missed += 1
            return
        self._samples += 1
        before, self._last = self._last, (at_s, sample)
        if sample.power_w is not None:
            self._add_peak(sample.power_w)
        if before is None or at_s <= before[0]:
            return
        seconds = at_s - before[0]
        energy_mj = self._between(before[1], sample, seconds)
        if energy_mj is None:
            return
        self._energy_mj += energy_mj
        self._measured_s += seconds
        if sample.power_w is None and seconds >= self._min_interval_s:
            self._add_peak(energy_mj / seconds / 1000)

    def figures(self, began_s: float, ended_s: float) -> Figures:
        """The figures of the time from ``began_s`` to ``ended_s``; up to 5 % without values are filled in with the mean."""
        if self._measured_s <= 0:
            return Figures(None, None, self._peak_w, self._samples, self._missed, 0.0)
        mean_w = self._energy_mj / self._measured_s / 1000
        rest_s = max(0.0, ended_s - began_s - self._measured_s)
        known = rest_s <= _UNMEASURED_SHARE * (ended_s - began_s)
        return Figures(
            energy_mj=self._energy_mj + mean_w * rest_s * 1000 if known else None,
            mean_w=mean_w,
            # The power of a GPU is averaged over up to a second, which the mean of a counter may exceed.
            peak_w=mean_w if self._peak_w is None else max(self._peak_w, mean_w),
            samples=self._samples,
            missed=self._missed,
            measured_s=self._measured_s,
        )

    def _add_peak(self, power_w: float) -> None:
        self._peak_w = power_w if self._peak_w is None else max(self._peak_w, power_w)

    def _between(self, before: Sample, after: Sample, seconds: float) -> float | None:
        """Energy in mJ between two samples; None if it is unknown."""
        if before.energy_mj is not None and after.energy_mj is not None:
            # Less than before: the counter was reset, as when the driver is loaded again.
            return after.energy_mj - before.energy_mj if after.energy_mj >= before.energy_mj else None
        if before.power_w is None or after.power_w is None or seconds > self._max_gap_s:
            return None
        return (before.power_w + after.power_w) / 2 * seconds * 1000


@dataclass(frozen=True)
class Sampled:
    """The samples of ``seconds``: one energy per meter, in the order of the meters. ``hung``: the thread did not end in time."""

    seconds: float
    energies: tuple[Energy, ...]
    heat: Heat
    cpu_s: float
    hung: bool


class Sampler:
    """Samples from ``start`` to ``stop``, once. Each takes a sample, so that the whole time is covered."""

    def __init__(self, meters: Sequence[Meter], root: Path, period_s: float) -> None:
        self._root, self._period_s = root, period_s
        self._channels = [_Channel(meter, period_s) for meter in meters]
        self._first, self._stop, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="edge-resnet-power", daemon=True)
        self._began_s: float | None = None
        self._ended_s = self._cpu_s = 0.0
        self._heat = _NO_HEAT
        self._hung = False

    def start(self) -> None:
        """Start; returns after the first sample, after ten seconds at most."""
        entered_s = time.monotonic()
        self._thread.start()
        if not self._first.wait(_MAX_START_S):
            with self._lock:
                self._began_s, self._ended_s = entered_s, time.monotonic()

    def stop(self) -> None:
        """Take the last sample and stop, after two seconds at most."""
        asked_s = time.monotonic()
        self._stop.set()
        self._thread.join(_MAX_WAIT_S)
        if self._thread.is_alive():
            with self._lock:
                self._hung, self._ended_s = True, asked_s

    def sampled(self) -> Sampled:
        """The samples so far."""
        with self._lock:
            began_s, ended_s = self._began_s or 0.0, self._ended_s
            energies = tuple(channel.energy(began_s, ended_s) for channel in self._channels)
            return Sampled(ended_s - began_s, energies, self._heat, self._cpu_s, self._hung)

    def _run(self) -> None:
        with ExitStack() as stack:
            for channel in self._channels:
                channel.open(stack)
            monitor = ThermalMonitor(self._root, find_rails(self._root), stack.enter_context(open_gpu()))
            due_s, heat_due_s, last = time.monotonic(), 0.0, False
            while not last:
                last = self._stop.is_set()
                self._sample()
                if last or time.monotonic() >= heat_due_s:
                    heat_due_s = time.monotonic() + _HEAT_PERIOD_S
                    monitor.sample()
                    self._heat = monitor.heat()
                self._cpu_s = time.thread_time()
                self._first.set()
                due_s = max(due_s + self._period_s, time.monotonic())
                self._stop.wait(due_s - time.monotonic())

    def _sample(self) -> None:
        taken = [channel.sample() for channel in self._channels]
        at_s = taken[0][0] if taken else time.monotonic()
        with self._lock:
            if self._hung:
                return
            for channel, (moment_s, sample) in zip(self._channels, taken, strict=True):
                channel.integral.add(moment_s, sample)
            self._began_s, self._ended_s = at_s if self._began_s is None else self._began_s, at_s


class _Channel:
    """A meter while it is read."""

    def __init__(self, meter: Meter, period_s: float) -> None:
        self.integral = Integral(max_gap_s=max(_MAX_GAP_S, 3 * period_s), min_interval_s=period_s / 2)
        self._meter = meter
        self._read: Read | None = None
        self._error = "no answer yet"

    def open(self, stack: ExitStack) -> None:
        try:
            self._read = stack.enter_context(self._meter.open())
        except (OSError, ValueError) as error:
            self._error = _line(error)

    def sample(self) -> tuple[float, Sample | None]:
        """The time of the reading (monotonic, s), and the sample."""
        before_s = time.monotonic()
        sample = None
        if self._read is not None:
            try:
                sample = self._read()
            except (OSError, ValueError) as error:
                self._error = _line(error)
        # A sensor on a slow bus takes milliseconds; its value is from some moment in between.
        return (before_s + time.monotonic()) / 2, sample

    def energy(self, began_s: float, ended_s: float) -> Energy:
        figures = self.integral.figures(began_s, ended_s)
        return Energy(
            source=self._meter.source,
            covers=self._meter.covers,
            energy_mj=figures.energy_mj,
            mean_w=figures.mean_w,
            peak_w=figures.peak_w,
            samples=figures.samples,
            missed=figures.missed,
            reason="" if figures.energy_mj is not None else self._reason(figures, ended_s - began_s),
        )

    def _reason(self, figures: Figures, seconds: float) -> str:
        if figures.samples == 1 and not figures.missed:
            return f"{self._meter.source} gave a single value"
        cause = f": {self._error}" if figures.missed or not figures.samples else ""
        return f"{self._meter.source} gave values for {figures.measured_s:.1f} of {seconds:.1f} s{cause}"


def _line(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return strerror or (str(error) if isinstance(error, OSError) else "not a number")
