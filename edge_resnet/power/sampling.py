"""The thread that samples meters and heat at a steady pace. Knows no sensor by name and judges nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.power.heat import Heat, Watch
from edge_resnet.power.integral import Figures, Integral
from edge_resnet.power.nvml import open_gpu
from edge_resnet.power.rails import find_rails
from edge_resnet.power.records import Energy, Meter, Read, Sample

__all__ = ["Sampled", "Sampler"]

#: A sensor that hangs in the kernel cannot be interrupted: it is left behind after this.
_LONGEST_WAIT_S = 2.0
#: NVML takes seconds to open where the driver was asleep.
_LONGEST_START_S = 10.0
_LONGEST_GAP_S = 1.0
#: Temperatures and clocks are looked at this often: they change slowly, and there are many.
_LOOK_EVERY_S = 0.25
_NO_HEAT = Heat({}, None, None, None)


@dataclass(frozen=True)
class Sampled:
    """All that was sampled in ``seconds``: one energy per meter, in their order. ``hung``: the thread did not end in time."""

    seconds: float
    energies: tuple[Energy, ...]
    heat: Heat
    cpu_s: float
    hung: bool


class Sampler:
    """Samples from ``start`` to ``stop``, once. Both take a sample of their own, so that no time is left out."""

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
        """Begin; returns once the first sample is taken, after ten seconds at most."""
        entered_s = time.monotonic()
        self._thread.start()
        if not self._first.wait(_LONGEST_START_S):
            with self._lock:
                self._began_s, self._ended_s = entered_s, time.monotonic()

    def stop(self) -> None:
        """Take the last sample and end, after two seconds at most."""
        asked_s = time.monotonic()
        self._stop.set()
        self._thread.join(_LONGEST_WAIT_S)
        if self._thread.is_alive():
            with self._lock:
                self._hung, self._ended_s = True, asked_s

    def sampled(self) -> Sampled:
        """What was sampled so far."""
        with self._lock:
            began_s, ended_s = self._began_s or 0.0, self._ended_s
            energies = tuple(channel.energy(began_s, ended_s) for channel in self._channels)
            return Sampled(ended_s - began_s, energies, self._heat, self._cpu_s, self._hung)

    def _run(self) -> None:
        with ExitStack() as stack:
            for channel in self._channels:
                channel.open(stack)
            watch = Watch(self._root, find_rails(self._root), stack.enter_context(open_gpu()))
            due_s, look_due_s, last = time.monotonic(), 0.0, False
            while not last:
                last = self._stop.is_set()
                self._sample()
                if last or time.monotonic() >= look_due_s:
                    look_due_s = time.monotonic() + _LOOK_EVERY_S
                    watch.look()
                    self._heat = watch.heat()
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
        self.integral = Integral(longest_gap_s=max(_LONGEST_GAP_S, 3 * period_s), shortest_s=period_s / 2)
        self._meter = meter
        self._read: Read | None = None
        self._error = "no answer yet"

    def open(self, stack: ExitStack) -> None:
        try:
            self._read = stack.enter_context(self._meter.open())
        except (OSError, ValueError) as error:
            self._error = _line(error)

    def sample(self) -> tuple[float, Sample | None]:
        """When the sensor was asked (monotonic), and what it gave."""
        before_s = time.monotonic()
        sample = None
        if self._read is not None:
            try:
                sample = self._read()
            except (OSError, ValueError) as error:
                self._error = _line(error)
        # A sensor behind a slow bus takes milliseconds; its value is of some moment in between.
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
