"""Energy from a stream of samples: counters are subtracted, powers integrated by the trapezoid rule. Knows no sensor."""

from __future__ import annotations

from dataclasses import dataclass

from edge_resnet.power.records import Sample

__all__ = ["Figures", "Integral"]

#: Of the time: what may lie outside the values before the energy is no longer called known.
_UNMEASURED_SHARE = 0.05


@dataclass(frozen=True)
class Figures:
    """``energy_mj`` is None where values are missing for more than 5 % of the time; ``measured_s`` is the time they cover."""

    energy_mj: float | None
    mean_w: float | None
    peak_w: float | None
    samples: int
    missed: int
    measured_s: float


class Integral:
    """Adds up samples in the order of their times. Memory does not grow with them.

    ``longest_gap_s``: two powers further apart say nothing of what lay between. ``shortest_s``: two values of a counter nearer
    than this give no peak, since counters move in steps.
    """

    def __init__(self, *, longest_gap_s: float, shortest_s: float) -> None:
        self._longest_gap_s, self._shortest_s = longest_gap_s, shortest_s
        self._last: tuple[float, Sample] | None = None
        self._energy_mj = self._measured_s = 0.0
        self._peak_w: float | None = None
        self._samples = self._missed = 0

    def add(self, at_s: float, sample: Sample | None) -> None:
        """Take the sample of this moment; None where the sensor gave no value."""
        if sample is None:
            self._missed += 1
            return
        self._samples += 1
        before, self._last = self._last, (at_s, sample)
        if sample.power_w is not None:
            self._see_peak(sample.power_w)
        if before is None or at_s <= before[0]:
            return
        seconds = at_s - before[0]
        energy_mj = self._between(before[1], sample, seconds)
        if energy_mj is None:
            return
        self._energy_mj += energy_mj
        self._measured_s += seconds
        if sample.power_w is None and seconds >= self._shortest_s:
            self._see_peak(energy_mj / seconds / 1000)

    def figures(self, began_s: float, ended_s: float) -> Figures:
        """What the samples say of the time from ``began_s`` to ``ended_s``; at most 5 % without values are taken at the mean."""
        if self._measured_s <= 0:
            return Figures(None, None, self._peak_w, self._samples, self._missed, 0.0)
        mean_w = self._energy_mj / self._measured_s / 1000
        rest_s = max(0.0, ended_s - began_s - self._measured_s)
        known = rest_s <= _UNMEASURED_SHARE * (ended_s - began_s)
        return Figures(
            energy_mj=self._energy_mj + mean_w * rest_s * 1000 if known else None,
            mean_w=mean_w,
            # A GPU's power is an average over up to a second, which a counter's mean may exceed.
            peak_w=mean_w if self._peak_w is None else max(self._peak_w, mean_w),
            samples=self._samples,
            missed=self._missed,
            measured_s=self._measured_s,
        )

    def _see_peak(self, power_w: float) -> None:
        self._peak_w = power_w if self._peak_w is None else max(self._peak_w, power_w)

    def _between(self, before: Sample, after: Sample, seconds: float) -> float | None:
        """mJ between two samples; None where they do not tell."""
        if before.energy_mj is not None and after.energy_mj is not None:
            # Less than before: the counter began anew, as when a driver is loaded again.
            return after.energy_mj - before.energy_mj if after.energy_mj >= before.energy_mj else None
        if before.power_w is None or after.power_w is None or seconds > self._longest_gap_s:
            return None
        return (before.power_w + after.power_w) / 2 * seconds * 1000
