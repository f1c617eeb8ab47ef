"""Which rails make up the total power of a board, on trees of JetPack 4 to 7."""

from __future__ import annotations

from pathlib import Path

import pytest
from sysfstrees import AGX_ORIN, NANO, ORIN_NANO, THOR, XAVIER_NX, iio, ina3221, write

from edge_resnet.device.power import find_meters, search_meters
from edge_resnet.device.power.boards import find_rails, total_meter

BOARDS = [
    pytest.param(NANO, "INA3221 POM_5V_IN", "module", 2.532, id="nano-jetpack4-iio"),
    pytest.param(XAVIER_NX, "INA3221 VDD_IN", "module", 4.5, id="xavier-nx-jetpack5"),
    pytest.param(ORIN_NANO, "INA3221 VDD_IN", "module", 6.0, id="orin-nano-jetpack6"),
    pytest.param(AGX_ORIN, "INA3221 VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", "module", 8.0, id="agx-orin-jetpack6"),
    pytest.param(THOR, "INA238 VIN", "board input", 25.0, id="thor-jetpack7"),
]


def _power_w(root: Path) -> float | None:
    with find_meters(root)[0].open() as read:
        return read().power_w


@pytest.mark.parametrize(("tree", "source", "covers", "watts"), BOARDS)
def test_the_total_of_each_board(tree: dict[str, str], source: str, covers: str, watts: float, tmp_path: Path) -> None:
    """Each board has one meter, its input or else the rails of the module, and the meter says what it covers."""
    (meter,) = find_meters(write(tmp_path, tree))
    assert (meter.source, meter.covers) == (source, covers)
    assert _power_w(tmp_path) == pytest.approx(watts)


def test_a_board_input_is_preferred_to_a_modules(tmp_path: Path) -> None:
    """VIN precedes VDD_IN, whatever the order of the sensors."""
    write(tmp_path, {**ORIN_NANO, **{name: value for name, value in THOR.items() if "2-0044" in name}})
    assert find_meters(tmp_path)[0].source == "INA238 VIN"


def test_thor_without_a_carrier_sensor_is_summed(tmp_path: Path) -> None:
    """Without INA238 the three module rails of Thor are added, including a value slightly below zero."""
    write(tmp_path, {name: value for name, value in THOR.items() if "2-0044" not in name})
    (meter,) = find_meters(tmp_path)
    assert (meter.source, meter.covers) == ("INA3221 VDD_GPU+VDD_CPU_SOC_MSS+VIN_SYS_5V0", "module")
    assert _power_w(tmp_path) == pytest.approx(-0.4 + 6 + 6.5)


def test_agx_xavier_is_the_sum_of_two_sensors(tmp_path: Path) -> None:
    """The six rails of AGX Xavier on two sensors make up the module, here as on JetPack 4."""
    first, second = (("GPU", 100), ("CPU", 200), ("SOC", 300)), (("CV", 400), ("VDDRQ", 500), ("SYS5V", 600))
    write(tmp_path, {**iio("1-0040", first), **iio("1-0041", second)})
    assert find_meters(tmp_path)[0].source == "INA3221 GPU+CPU+SOC+CV+VDDRQ+SYS5V"
    assert _power_w(tmp_path) == pytest.approx(2.1)


def test_rails_of_no_known_board_are_not_added(tmp_path: Path) -> None:
    """An unknown set of rails might count power twice: there is no meter, and the reason names the rails."""
    write(tmp_path, ina3221("1-0040", 1, (("VDD_A", 5000, 1), ("VDD_B", 5000, 1), ("NC_2", 0, 0))))
    found = search_meters(tmp_path)
    assert found.meters == ()
    assert "VDD_A, VDD_B: none is its input" in found.reasons[0]


def test_an_input_that_cannot_be_read_is_not_replaced_by_its_parts(tmp_path: Path) -> None:
    """If VDD_IN gives an error there is no total, since the other rails are not the whole module."""
    write(tmp_path, ORIN_NANO)
    (tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input").unlink()
    assert search_meters(tmp_path).meters == ()


def test_channels_that_are_off_or_sums_are_no_rails(tmp_path: Path) -> None:
    """NC, channels without a label and the sum of shunt voltages are left out."""
    write(tmp_path, AGX_ORIN)
    assert [rail.name for rail in find_rails(tmp_path)] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]


def test_a_rail_seen_twice_counts_once(tmp_path: Path) -> None:
    """Two sensors with the same rail name count as one rail."""
    write(tmp_path, {**AGX_ORIN, **ina3221("9-0040", 9, (("VDD_GPU_SOC", 20000, 999), ("", 0, 0), ("", 0, 0)))})
    assert _power_w(tmp_path) == pytest.approx(8.0)


def test_a_rail_is_read_anew_each_time(tmp_path: Path) -> None:
    """The meter gives the current value, and an error once the file is gone."""
    write(tmp_path, NANO)
    path = "sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input"
    meter, _ = total_meter(find_rails(tmp_path))
    assert meter is not None
    with meter.open() as read:
        assert read().power_w == pytest.approx(2.532)
        write(tmp_path, {path: "7100"})
        assert read().power_w == pytest.approx(7.1)
        (tmp_path / path).unlink()
        with pytest.raises(OSError, match="No such file"):
            read()


def test_an_empty_machine_says_what_it_lacks(tmp_path: Path) -> None:
    """Without any sensor there is a reason for each kind."""
    found = search_meters(tmp_path)
    assert found.meters == ()
    assert found.reasons == (
        "no INA3221 or INA238 sensor",
        "pynvml is not installed: pip install nvidia-ml-py",
        "no RAPL counter",
    )
