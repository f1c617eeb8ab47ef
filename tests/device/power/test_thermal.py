"""Temperatures, clocks and signs of throttling on trees that change between samples."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sysfstrees import CLOCK, NANO, ORIN_NANO, THOR, XAVIER_NX, write

from edge_resnet.device.power import ClockRange, Temperature
from edge_resnet.device.power.boards import find_rails
from edge_resnet.device.power.thermal import Heat, ThermalMonitor

HWMON = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
LOAD = "sys/devices/platform/gpu.0/load"


def _watch(root: Path) -> ThermalMonitor:
    return ThermalMonitor(root, find_rails(root), None)


def _seen(root: Path, *changes: dict[str, str]) -> Heat:
    """The result of a monitor that samples once before the changes and once after each."""
    monitor = _watch(root)
    for change in ({}, *changes):
        write(root, change)
        monitor.sample()
    return monitor.heat()


def _hottest(heat: Heat) -> dict[str, float]:
    return {zone: temperature.max_c for zone, temperature in heat.temperatures.items()}


def _throttling(root: Path, *changes: dict[str, str]) -> tuple[str, ...] | None:
    return _seen(root, *changes).throttling


@contextmanager
def _says(pipe: Path, value: str) -> Iterator[None]:
    """Only one reader of the pipe gets this value, like a sensor that resets it when read."""
    writer = threading.Thread(target=pipe.write_text, args=(value,), daemon=True)
    writer.start()
    yield
    writer.join(2)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        pytest.param(NANO, {"AO-therm": 41.0, "CPU-therm": 33.5, "GPU-therm": 31.5}, id="nano"),
        pytest.param(XAVIER_NX, {"CPU-therm": 45.0, "GPU-therm": 44.5}, id="xavier-nx"),
        pytest.param(ORIN_NANO, {"cpu-thermal": 50.5, "gpu-thermal": 51.25, "tj-thermal": 52.0}, id="orin-nano"),
    ],
)
def test_zones_that_are_off_or_constant_are_left_out(tree: dict[str, str], expected: dict[str, float], tmp_path: Path) -> None:
    """All zones of a board are in °C, without the constant PMIC zone and a zone at -256 °C."""
    assert _hottest(_seen(write(tmp_path, tree))) == expected


def test_the_highest_temperature_stays(tmp_path: Path) -> None:
    """The maximum of each zone is kept."""
    zone = "sys/class/thermal/thermal_zone"
    heat = _seen(write(tmp_path, ORIN_NANO), {f"{zone}1/temp": "70125"}, {f"{zone}1/temp": "60000", f"{zone}0/temp": "50000"})
    assert _hottest(heat) == {"cpu-thermal": 50.5, "gpu-thermal": 70.125, "tj-thermal": 52.0}


def test_a_zone_has_a_before_and_an_after(tmp_path: Path) -> None:
    """First, last and maximum value are kept separately, and a failed sample changes none of them."""
    zone = "sys/class/thermal/thermal_zone0/temp"
    heat = _seen(write(tmp_path, ORIN_NANO), {zone: "61000"}, {zone: "58000"}, {zone: ""})
    assert heat.temperatures["cpu-thermal"] == Temperature(before_c=50.5, after_c=58.0, max_c=61.0)
    assert heat.temperatures["tj-thermal"] == Temperature(52.0, 52.0, 52.0)


def test_frost_is_a_temperature(tmp_path: Path) -> None:
    """A temperature below zero is no error."""
    zone = "sys/class/thermal/thermal_zone0"
    heat = _seen(write(tmp_path, {f"{zone}/type": "cpu-thermal", f"{zone}/temp": "-12500"}))
    assert _hottest(heat) == {"cpu-thermal": -12.5}


def test_a_zone_that_fails_for_a_while_is_skipped(tmp_path: Path) -> None:
    """A zone that gives no value keeps its previous one; a zone that never gave a value is not listed."""
    root = write(tmp_path, ORIN_NANO)
    monitor = _watch(root)
    (root / "sys/class/thermal/thermal_zone2/temp").unlink()
    monitor.sample()
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("")
    monitor.sample()
    assert _hottest(monitor.heat()) == {"cpu-thermal": 50.5, "gpu-thermal": 51.25}


def test_clocks_have_least_mean_and_most(tmp_path: Path) -> None:
    """Clocks are in MHz; that of the CPU is the clock of its fastest core at each sample."""
    policy = "sys/devices/system/cpu/cpufreq/policy"
    heat = _seen(
        write(tmp_path, ORIN_NANO),
        {f"{CLOCK}/cur_freq": "306000000", f"{policy}0/scaling_cur_freq": "729600", f"{policy}4/scaling_cur_freq": "1000000"},
    )
    assert heat.gpu_clock == ClockRange(306, 465, 624)
    assert heat.cpu_clock == ClockRange(1000, pytest.approx(1255.2), pytest.approx(1510.4))


def test_thors_clock_has_another_name(tmp_path: Path) -> None:
    """gpu-gpc-0 is the GPU of Thor."""
    assert _seen(write(tmp_path, THOR)).gpu_clock == ClockRange(1575, 1575, 1575)


def test_a_calm_board_shows_no_sign(tmp_path: Path) -> None:
    """A running fan, old over-current events and a full clock are not throttling."""
    assert _throttling(write(tmp_path, ORIN_NANO), {LOAD: "1000"}, {}) == ()


def test_nothing_to_watch_is_unknown(tmp_path: Path) -> None:
    """A machine that reports none of the signs gives None, not an empty result."""
    assert _seen(tmp_path) == Heat({}, None, None, None)


def test_a_clock_that_falls_under_load_is_a_sign(tmp_path: Path) -> None:
    """The clock of a busy GPU does not fall; a fall of 10 % is reported once, with both values."""
    changes = [{LOAD: "990"}, {f"{CLOCK}/cur_freq": "408000000"}, {f"{CLOCK}/cur_freq": "306000000"}]
    assert _throttling(write(tmp_path, ORIN_NANO), *changes) == ("the GPU clock fell from 624 to 408 MHz under load",)


def test_a_clock_that_falls_when_idle_is_none(tmp_path: Path) -> None:
    """Between two batches the governor lowers the clock, and raises it again under load."""
    low, high = {f"{CLOCK}/cur_freq": "306000000"}, {f"{CLOCK}/cur_freq": "624750000"}
    assert _throttling(write(tmp_path, ORIN_NANO), {LOAD: "990"}, {LOAD: "100", **low}, {LOAD: "990", **high}) == ()


def test_a_clock_that_still_rises_is_none(tmp_path: Path) -> None:
    """At the start of a load the clock is low because the GPU was idle."""
    low, high = {f"{CLOCK}/cur_freq": "306000000"}, {f"{CLOCK}/cur_freq": "624750000"}
    assert _throttling(write(tmp_path, {**ORIN_NANO, **low}), {LOAD: "990"}, high) == ()


def test_the_load_may_stand_beside_the_clock(tmp_path: Path) -> None:
    """Without gpu.0 in /sys/devices the load is read in the folder of the GPU."""
    tree = {name: value for name, value in ORIN_NANO.items() if name != LOAD}
    changes = ({f"{CLOCK}/cur_freq": "306000000"},)
    assert _throttling(write(tmp_path / "without", tree), *changes) == ()
    assert _throttling(write(tmp_path / "with", {**tree, f"{CLOCK}/device/load": "990"}), *changes) == (
        "the GPU clock fell from 624 to 306 MHz under load",
    )


def test_a_lowered_upper_bound_is_a_sign(tmp_path: Path) -> None:
    """Heat lowers the maximum of the clock, whatever the load."""
    assert _throttling(write(tmp_path, ORIN_NANO), {f"{CLOCK}/max_freq": "408000000"}) == (
        "the maximum of the GPU clock fell from 624 to 408 MHz",
    )


def test_a_current_above_its_limit_is_a_sign(tmp_path: Path) -> None:
    """Each alarm of each rail is listed once, even if it is gone at the next sample."""
    alarm = f"{HWMON}/curr1_crit_alarm"
    assert _throttling(write(tmp_path, ORIN_NANO), {alarm: "1"}, {alarm: "0"}, {alarm: "1"}) == (
        "VDD_IN (curr1_crit_alarm): the current exceeds the limit",
    )


def test_an_alarm_of_long_ago_is_none(tmp_path: Path) -> None:
    """The sensor keeps an alarm until it is read, so the very first value may be older than the measurement."""
    root = write(tmp_path, ORIN_NANO)
    alarm = root / HWMON / "curr1_max_alarm"
    alarm.unlink()
    os.mkfifo(alarm)
    with _says(alarm, "1"):
        monitor = _watch(root)
    with _says(alarm, "0"):
        monitor.sample()
    assert monitor.heat().throttling == ()


def test_an_over_current_event_is_a_sign(tmp_path: Path) -> None:
    """The counters of Orin are reported by their increase, whatever their values were."""
    counter = "sys/class/hwmon/hwmon3/oc3_event_cnt"
    assert _throttling(write(tmp_path, ORIN_NANO), {counter: "39"}, {counter: "41"}) == (
        "over-current counter oc3_event_cnt rose by 4",
    )


def test_a_cooling_device_that_slows_down_is_a_sign(tmp_path: Path) -> None:
    """An active throttle alert is listed; a faster fan is not."""
    cooling = "sys/class/thermal/cooling_device"
    assert _throttling(write(tmp_path, ORIN_NANO), {f"{cooling}0/cur_state": "9", f"{cooling}1/cur_state": "1"}) == (
        "cooling device gpu-throttle-alert is active",
    )


def test_an_x86_package_that_throttles_is_a_sign(tmp_path: Path) -> None:
    """The kernel counts each time that heat throttled the CPU."""
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    assert _throttling(write(tmp_path, {counter: "5"}), {counter: "6"}) == ("package_throttle_count of the CPU rose by 1",)
