"""Integration of samples: the energy is exact, or unknown if there are too few samples. Needs no sensor."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.device.power import Sample
from edge_resnet.device.power.sampling import Integral

STEPS = st.lists(st.floats(0.001, 0.9), min_size=1, max_size=20)
WATTS = st.floats(0.01, 1000)


def _integral() -> Integral:
    return Integral(max_gap_s=1.0, min_interval_s=0.05)


def _times(steps: list[float], start: float = 1000.0) -> list[float]:
    return list(itertools.accumulate(steps, initial=start))


@given(STEPS, WATTS)
def test_constant_power_gives_power_times_time(steps: list[float], watts: float) -> None:
    """Energy, mean and peak of a constant power are exact, however the samples are spaced."""
    times, integral = _times(steps), _integral()
    for at_s in times:
        integral.add(at_s, Sample(power_w=watts))
    figures = integral.figures(times[0], times[-1])
    assert figures.energy_mj == pytest.approx(watts * 1000 * (times[-1] - times[0]), rel=1e-9)
    assert figures.mean_w == pytest.approx(watts)
    assert figures.peak_w == pytest.approx(watts)
    assert figures.samples == len(times)


@given(st.lists(st.tuples(st.floats(0.001, 0.9), WATTS), min_size=2, max_size=20))
def test_power_in_straight_pieces_is_integrated_exactly(pieces: list[tuple[float, float]]) -> None:
    """A piecewise linear power gives the sum of the trapezoids, and the peak is the highest sample."""
    times, integral = _times([step for step, _ in pieces[1:]]), _integral()
    for at_s, (_, watts) in zip(times, pieces, strict=True):
        integral.add(at_s, Sample(power_w=watts))
    pairs = zip(itertools.pairwise(times), itertools.pairwise(watts for _, watts in pieces), strict=True)
    expected = sum((end - begin) * (first + second) / 2 for (begin, end), (first, second) in pairs)
    figures = integral.figures(times[0], times[-1])
    assert figures.energy_mj == pytest.approx(expected * 1000, rel=1e-9)
    assert figures.peak_w == pytest.approx(max(watts for _, watts in pieces))


@given(st.lists(st.tuples(st.floats(0.001, 100), st.floats(0, 1e6)), min_size=1, max_size=20), st.floats(0, 1e12))
def test_a_counter_gives_its_difference(pieces: list[tuple[float, float]], start_mj: float) -> None:
    """Nothing is lost between two values of a counter, however far apart they are."""
    times = _times([step for step, _ in pieces])
    values = list(itertools.accumulate((energy for _, energy in pieces), initial=start_mj))
    integral = _integral()
    for at_s, value in zip(times, values, strict=True):
        integral.add(at_s, Sample(energy_mj=value))
    assert integral.figures(times[0], times[-1]).energy_mj == pytest.approx(values[-1] - values[0], rel=1e-6, abs=1e-3)


@given(STEPS, STEPS, st.lists(WATTS, min_size=41, max_size=41))
def test_two_measurements_that_meet_add_up_to_one(before: list[float], after: list[float], watts: list[float]) -> None:
    """The energy of an interval is the sum of the energies of its two parts."""
    times = _times(before + after)
    samples = list(zip(times, watts, strict=False))

    def energy(part: list[tuple[float, float]]) -> float:
        integral = _integral()
        for at_s, power_w in part:
            integral.add(at_s, Sample(power_w=power_w))
        energy_mj = integral.figures(part[0][0], part[-1][0]).energy_mj
        assert energy_mj is not None
        return energy_mj

    halves = energy(samples[: len(before) + 1]) + energy(samples[len(before) :])
    assert energy(samples) == pytest.approx(halves, rel=1e-9)


def test_a_counter_is_trusted_above_a_power() -> None:
    """If a sensor gives both, the energy comes from the counter and the peak from the power."""
    integral = _integral()
    integral.add(0.0, Sample(power_w=900.0, energy_mj=0.0))
    integral.add(1.0, Sample(power_w=10.0, energy_mj=50_000.0))
    figures = integral.figures(0.0, 1.0)
    assert (figures.energy_mj, figures.mean_w, figures.peak_w) == (50_000.0, 50.0, 900.0)


def test_the_peak_of_a_bare_counter_is_the_highest_mean_between_two_values() -> None:
    """Two values of a counter give a mean, unless they are too close, since counters move in steps."""
    integral = _integral()
    for at_s, energy_mj in ((0.0, 0.0), (0.1, 1000.0), (0.2, 4000.0), (0.201, 5000.0)):
        integral.add(at_s, Sample(energy_mj=energy_mj))
    assert integral.figures(0.0, 0.201).peak_w == pytest.approx(30.0)


def test_a_peak_is_never_below_the_mean() -> None:
    """A power that is itself an average may be below the mean of the counter; the peak is not."""
    integral = _integral()
    integral.add(0.0, Sample(power_w=10.0, energy_mj=0.0))
    integral.add(1.0, Sample(power_w=11.0, energy_mj=40_000.0))
    assert integral.figures(0.0, 1.0).peak_w == 40.0


def test_a_missed_sample_is_bridged_by_its_neighbours() -> None:
    """The energy is still known after one failure among many, which is counted."""
    integral = _integral()
    for at_s, sample in ((0.0, Sample(5.0)), (0.1, None), (0.2, Sample(5.0))):
        integral.add(at_s, sample)
    figures = integral.figures(0.0, 0.2)
    assert figures.energy_mj == pytest.approx(1000)
    assert (figures.samples, figures.missed) == (2, 1)


@pytest.mark.parametrize("ended_s", [10.6, 100.0])
def test_energy_is_unknown_once_the_values_end_early(ended_s: float) -> None:
    """If more than 5 % of the time lacks values, the energy is unknown, but the mean of the rest is known."""
    integral = _integral()
    for tenth in range(101):
        integral.add(tenth / 10, Sample(power_w=4.0))
    figures = integral.figures(0.0, ended_s)
    assert figures.energy_mj is None
    assert figures.mean_w == pytest.approx(4.0)
    assert figures.measured_s == pytest.approx(10.0)


def test_a_short_end_without_values_is_taken_at_the_mean() -> None:
    """Up to 5 % of the time may lack values and is filled in with the mean."""
    integral = _integral()
    for tenth in range(101):
        integral.add(tenth / 10, Sample(power_w=4.0))
    assert integral.figures(0.0, 10.4).energy_mj == pytest.approx(4000 * 10.4)


def test_powers_far_apart_say_nothing_of_the_time_between() -> None:
    """A gap above the maximum is not integrated over, and a large one makes the energy unknown."""
    integral = _integral()
    for at_s in (0.0, 0.5, 5.0, 5.5):
        integral.add(at_s, Sample(power_w=4.0))
    figures = integral.figures(0.0, 5.5)
    assert figures.energy_mj is None
    assert figures.measured_s == pytest.approx(1.0)


def test_a_counter_that_begins_anew_is_not_subtracted() -> None:
    """A value below the previous one, as after a reload of the driver, is a gap and not negative energy."""
    integral = _integral()
    for at_s, energy_mj in ((0.0, 5000.0), (10.0, 15_000.0), (10.1, 3.0), (20.0, 9_903.0)):
        integral.add(at_s, Sample(energy_mj=energy_mj))
    figures = integral.figures(0.0, 20.0)
    assert figures.mean_w == pytest.approx(19_900 / 19.9 / 1000)
    assert figures.energy_mj == pytest.approx(20_000)


@pytest.mark.parametrize("samples", [[], [None, None], [Sample(power_w=3.0)]])
def test_fewer_than_two_values_give_no_energy(samples: list[Sample | None]) -> None:
    """With at most one value the energy is unknown, which is not zero."""
    integral = _integral()
    for at_s, sample in enumerate(samples):
        integral.add(float(at_s), sample)
    figures = integral.figures(0.0, 1.0)
    assert figures.energy_mj is None
    assert figures.mean_w is None
