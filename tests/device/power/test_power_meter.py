"""PowerMeter on trees that change while it samples, in real time, and with sensors that fail."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from sysfstrees import AGX_ORIN, NANO, ORIN_NANO, RAPL, THOR, XAVIER_NX, write

from edge_resnet.core.errors import ConfigError
from edge_resnet.device.power import Meter, PowerMeter, PowerReading, Sample, Temperature, find_meters, search_meters
from edge_resnet.device.power.records import Read

CURRENT = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input"
ENERGY = "sys/class/powercap/intel-rapl:0/energy_uj"


def _constant(watts: float) -> Meter:
    return Meter("a constant", "GPU", lambda: nullcontext(lambda: Sample(power_w=watts)))


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edge-resnet-power"]


def _wait_for_the_thread() -> None:
    for thread in _threads():
        thread.join(10)
    assert not _threads()


@pytest.mark.parametrize(
    ("tree", "watts", "mode"),
    [
        pytest.param(NANO, 2.532, None, id="nano-jetpack4"),
        pytest.param(XAVIER_NX, 4.5, None, id="xavier-nx-jetpack5"),
        pytest.param(ORIN_NANO, 6.0, "MAXN_SUPER", id="orin-nano-jetpack6"),
        pytest.param(AGX_ORIN, 8.0, None, id="agx-orin-jetpack6"),
        pytest.param(THOR, 25.0, None, id="thor-jetpack7"),
    ],
)
def test_a_steady_boards_energy_is_power_times_time(tree: dict[str, str], watts: float, mode: str | None, tmp_path: Path) -> None:
    """On the tree of each board a constant power gives exact energy, mean and peak, and the power mode by name."""
    with PowerMeter(root=write(tmp_path, tree), hz=100) as meter:
        time.sleep(0.1)
    reading = meter.reading()
    assert reading.seconds == pytest.approx(0.1, abs=0.09)
    assert reading.energy_mj == pytest.approx(watts * 1000 * reading.seconds)
    assert (reading.mean_w, reading.peak_w) == (pytest.approx(watts), pytest.approx(watts))
    assert reading.samples >= 2
    assert reading.power_mode == mode


def test_power_that_changes_while_sampled_is_followed(tmp_path: Path) -> None:
    """6 W followed by 12 W give the weighted mean, and a peak of 12 W."""
    with PowerMeter(root=write(tmp_path, ORIN_NANO), hz=100) as meter:
        began = time.monotonic()
        time.sleep(0.4)
        changed = time.monotonic()
        write(tmp_path, {CURRENT: "2400"})
        time.sleep(0.4)
        ended = time.monotonic()
    reading = meter.reading()
    assert reading.mean_w == pytest.approx((6 * (changed - began) + 12 * (ended - changed)) / (ended - began), rel=0.2)
    assert reading.peak_w == pytest.approx(12)
    assert reading.energy_mj == pytest.approx(reading.mean_w * reading.seconds * 1000)


def test_a_processors_counter_is_measured_across_its_wrap(tmp_path: Path) -> None:
    """A RAPL counter that wraps around gives the energy of both parts; it has no power samples."""
    range_uj = int(RAPL["sys/class/powercap/intel-rapl:0/max_energy_range_uj"])
    with PowerMeter(root=write(tmp_path, {**RAPL, ENERGY: str(range_uj - 2_000_000)}), hz=50) as meter:
        time.sleep(0.1)
        write(tmp_path, {ENERGY: "1000000"})
        time.sleep(0.1)
    reading = meter.reading()
    assert reading.energy_mj == pytest.approx(3000)
    assert (reading.source, reading.covers) == ("RAPL package-0", "CPU package")


def test_energy_is_shared_among_what_was_counted(tmp_path: Path) -> None:
    """mj_per divides; for a count of zero or an unknown energy it is None, never zero."""
    with PowerMeter([_constant(10)], root=tmp_path, hz=100) as meter:
        time.sleep(0.05)
    reading = meter.reading()
    assert reading.mj_per(10) == pytest.approx(1000 * reading.seconds)
    assert reading.mj_per(0) is None
    assert dataclasses.replace(reading, energy_mj=None).mj_per(10) is None


def test_all_meters_are_read_and_the_first_leads(tmp_path: Path) -> None:
    """The main figures are those of the first meter; the others are listed separately."""
    meters = (_constant(3), *find_meters(write(tmp_path, ORIN_NANO)))
    with PowerMeter(meters, root=tmp_path, hz=50) as meter:
        time.sleep(0.1)
    reading = meter.reading()
    assert (reading.source, reading.mean_w) == ("a constant", pytest.approx(3))
    (other,) = reading.others
    assert (other.source, other.mean_w, other.reason) == ("INA3221 VDD_IN", pytest.approx(6), "")
    assert other.energy_mj == pytest.approx(6000 * reading.seconds, rel=0.1)


def _absent(reading: PowerReading) -> set[str]:
    return {field.name for field in dataclasses.fields(reading) if getattr(reading, field.name) is None}


@pytest.mark.parametrize("tree", [{}, NANO, XAVIER_NX, ORIN_NANO, AGX_ORIN, THOR, RAPL], ids=str)
def test_whatever_is_none_has_a_reason_and_nothing_else_has(tree: dict[str, str], tmp_path: Path) -> None:
    """``absent`` names exactly the fields that are None, each with a reason."""
    with PowerMeter(root=write(tmp_path, tree), hz=100) as meter:
        pass
    reading = meter.reading()
    assert set(reading.absent) == _absent(reading)
    assert all(reading.absent.values())


def test_a_machine_without_meters_says_why(tmp_path: Path) -> None:
    """Without any sensor the block runs normally, and the reasons are those of the search."""
    with PowerMeter(root=tmp_path) as meter:
        pass
    reading = meter.reading()
    assert (reading.energy_mj, reading.samples, reading.source) == (None, 0, None)
    assert "no INA3221 or INA238 sensor; pynvml is not installed" in reading.absent["energy_mj"]


def test_what_was_found_is_taken_with_its_reasons(tmp_path: Path) -> None:
    """The result of an earlier search is used, with its reasons if it found nothing."""
    found = search_meters(write(tmp_path, NANO), works="GPU")
    with PowerMeter(found, root=tmp_path, hz=100) as meter:
        time.sleep(0.03)
    assert meter.reading().source == "INA3221 POM_5V_IN"
    with PowerMeter(search_meters(tmp_path / "none"), root=tmp_path, hz=100) as meter:
        pass
    assert meter.reading().absent["energy_mj"].startswith("no INA3221 or INA238 sensor; pynvml is not installed")


def test_no_meter_may_be_asked_for(tmp_path: Path) -> None:
    """With an empty list of meters only heat is observed, although the board has a sensor."""
    with PowerMeter((), root=write(tmp_path, ORIN_NANO)) as meter:
        pass
    reading = meter.reading()
    assert reading.absent["energy_mj"] == "no meter was requested"
    assert reading.temperatures is not None


def test_a_sensor_that_vanishes_midway_ends_the_energy(tmp_path: Path) -> None:
    """Nothing is raised: the mean of the measured part is kept, the energy is unknown, and the reason says for how long."""
    with PowerMeter(root=write(tmp_path, ORIN_NANO), hz=50) as meter:
        time.sleep(0.2)
        (tmp_path / CURRENT).unlink()
        time.sleep(0.3)
    reading = meter.reading()
    assert reading.energy_mj is None
    assert reading.mean_w == pytest.approx(6)
    assert list(reading.absent) == ["energy_mj"]
    assert re.fullmatch(
        r"INA3221 VDD_IN gave values for 0\.\d of \d\.\d s: No such file or directory", reading.absent["energy_mj"]
    )
    assert reading.notes[0].startswith("INA3221 VDD_IN gave no value ")


def test_a_sensor_that_stutters_keeps_its_energy(tmp_path: Path) -> None:
    """Occasional missing values are bridged and counted in a note."""
    answers = iter([1, 1, 0, 1, 1, 0, 0, 1])

    def read() -> Sample:
        if next(answers, 1):
            return Sample(power_w=5)
        raise OSError(11, "Resource temporarily unavailable")

    with PowerMeter([Meter("a stutterer", "module", lambda: nullcontext(read))], root=tmp_path, hz=100) as meter:
        while meter.reading().samples < 6:
            time.sleep(0.01)
    reading = meter.reading()
    assert reading.energy_mj == pytest.approx(5000 * reading.seconds)
    assert reading.notes == (f"a stutterer gave no value in 3 of {reading.samples + 3} samples",)


def test_a_sensor_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """A meter that fails to open gives no samples; the others do."""

    @contextmanager
    def broken() -> Iterator[Read]:
        raise OSError(13, "Permission denied")
        yield  # pragma: no cover

    with PowerMeter([_constant(3), Meter("a broken one", "module", broken)], root=tmp_path, hz=100) as meter:
        time.sleep(0.05)
    reading = meter.reading()
    assert reading.energy_mj is not None
    assert reading.others[0].samples == 0
    assert re.fullmatch(r"a broken one gave values for 0\.0 of \d\.\d s: Permission denied", reading.others[0].reason)
    assert reading.others[0].reason in reading.notes


def test_a_sensor_that_hangs_does_not_hold_the_block(tmp_path: Path) -> None:
    """A read that never returns is abandoned after two seconds, and the reading notes that its end is missing."""
    meters = find_meters(write(tmp_path, NANO))
    pipe = tmp_path / "sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input"
    fresh, held = tmp_path / "pipe", tmp_path / "held"
    with PowerMeter(meters, root=tmp_path, hz=50) as meter:
        time.sleep(0.1)
        os.mkfifo(fresh)
        os.link(fresh, held)
        fresh.replace(pipe)
        time.sleep(0.3)
        left = time.monotonic()
    assert 1.9 < time.monotonic() - left < 60
    reading = meter.reading()
    assert reading.notes == ("a sensor did not answer in time: the end of the measurement is missing",)
    assert reading.energy_mj is None
    assert reading.mean_w == pytest.approx(2.532)
    write(tmp_path, {str(pipe.relative_to(tmp_path)): "9999"})
    held.write_text("9999\n")  # lets the thread go
    _wait_for_the_thread()
    late = meter.reading()
    assert (late.samples, late.peak_w, late.seconds) == (reading.samples, reading.peak_w, reading.seconds)


def test_a_reading_may_be_taken_before_the_end(tmp_path: Path) -> None:
    """Inside the block the reading covers the time so far, and grows."""
    with PowerMeter(root=write(tmp_path, ORIN_NANO), hz=100) as meter:
        early = meter.reading()
        time.sleep(0.15)
        late = meter.reading()
    assert early.seconds < late.seconds <= meter.reading().seconds
    assert late.energy_mj == pytest.approx(6000 * late.seconds)
    assert early.samples >= 1


def test_a_finished_reading_does_not_change(tmp_path: Path) -> None:
    """After the block the thread has ended and samples nothing more."""
    with PowerMeter(root=write(tmp_path, ORIN_NANO), hz=100) as meter:
        pass
    first = meter.reading()
    write(tmp_path, {CURRENT: "9999"})
    time.sleep(0.05)
    assert meter.reading() == first
    assert not _threads()


def test_a_meter_can_be_entered_again(tmp_path: Path) -> None:
    """The second measurement starts from nothing."""
    meter = PowerMeter(root=write(tmp_path, ORIN_NANO), hz=100)
    with meter:
        write(tmp_path, {CURRENT: "9999"})
        time.sleep(0.1)
    write(tmp_path, {CURRENT: "1200"})
    with meter:
        time.sleep(0.05)
    assert meter.reading().peak_w == pytest.approx(6)


def test_the_blocks_own_error_passes_through(tmp_path: Path) -> None:
    """An error in the block is raised, and the measurement up to it is kept."""
    meter = PowerMeter(root=write(tmp_path, ORIN_NANO), hz=100)

    def fail_inside() -> None:
        with meter:
            time.sleep(0.03)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert meter.reading().energy_mj is not None


def test_heat_of_the_whole_block_is_seen(tmp_path: Path) -> None:
    """What happens between two slow samples is seen by the last sample."""
    with PowerMeter(root=write(tmp_path, ORIN_NANO), hz=100) as meter:
        time.sleep(0.05)
        write(tmp_path, {"sys/class/thermal/thermal_zone2/temp": "88000", "sys/class/hwmon/hwmon3/oc3_event_cnt": "38"})
    reading = meter.reading()
    assert reading.temperatures is not None
    assert reading.temperatures["tj-thermal"] == Temperature(before_c=52, after_c=88, max_c=88)
    assert reading.throttling == ("over-current counter oc3_event_cnt rose by 1",)


def test_a_reading_fits_into_json(tmp_path: Path) -> None:
    """As a dictionary it survives JSON unchanged, except for tuples."""
    with PowerMeter(root=write(tmp_path, ORIN_NANO), hz=100) as meter:
        time.sleep(0.03)
    record = json.loads(json.dumps(dataclasses.asdict(meter.reading())))
    assert record["gpu_clock"] == {"min_mhz": 624, "mean_mhz": 624, "max_mhz": 624}
    assert record["absent"] == {}


def test_a_mode_without_a_name_is_a_number(tmp_path: Path) -> None:
    """A mode without a name in nvpmodel.conf is given by its number."""
    with PowerMeter(root=write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0008"})) as meter:
        pass
    assert meter.reading().power_mode == "8"


@pytest.mark.parametrize("hz", [0.0, -1.0, 5000.0, float("nan")])
def test_senseless_paces_are_refused(hz: float) -> None:
    """An impossible sampling rate is an error of the caller."""
    with pytest.raises(ConfigError, match="samples per second"):
        PowerMeter(hz=hz)


def test_nothing_measured_is_the_callers_error() -> None:
    """A reading before the block is refused, with a hint."""
    with pytest.raises(ConfigError, match="no power was measured") as caught:
        PowerMeter().reading()
    assert "with PowerMeter() as meter" in caught.value.hint


@pytest.mark.parametrize("tree", [pytest.param(ORIN_NANO, id="orin-nano"), pytest.param(AGX_ORIN, id="agx-orin")])
def test_sampling_opens_few_files(tree: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of power are opened ten times a second, those of temperatures and clocks four times, and a few times at either end.

    The time that this takes depends on the machine, and `bench` reports it as part of what measuring took.
    """
    write(tmp_path, tree)
    opened: list[str] = []
    open_file = os.open

    def counting(path: str, flags: int) -> int:
        opened.append(str(path))
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", counting)
    with PowerMeter(root=tmp_path) as meter:
        time.sleep(1.5)
    reading = meter.reading()
    assert reading.samples >= 2
    assert reading.sampling_cpu_s > 0
    for path, times in Counter(opened).items():
        per_s = 10 if "hwmon" in path else 4
        assert times <= per_s * reading.seconds + 5, path
