"""NVML through a stand-in for pynvml that supports only what a test gives it. Needs no GPU."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from sysfstrees import ORIN_NANO, RAPL, THOR, write

from edge_resnet.device.power import PowerMeter, Sample, Temperature, find_meters, search_meters
from edge_resnet.device.power.nvml import open_gpu

A_GPU = {"name": "NVIDIA A", "uuid": "GPU-aaaa-1", "power_mw": 70_000, "energy_mj": 1000, "clock_mhz": 1410}
B_GPU = {"name": "NVIDIA B", "uuid": "GPU-bbbb-2", "power_mw": 30_000}


def test_a_gpu_with_a_counter_gives_energy_and_power(nvml: ModuleType, tmp_path: Path) -> None:
    """Volta and newer report both."""
    nvml.gpus.append(A_GPU)
    (meter,) = find_meters(tmp_path)
    assert (meter.source, meter.covers) == ("NVML GPU 0 NVIDIA A", "GPU")
    with meter.open() as read:
        assert read() == Sample(power_w=70.0, energy_mj=1000)


@pytest.mark.parametrize(
    ("tree", "works", "covers"),
    [
        (RAPL, "CPU", ["CPU package", "GPU"]),
        (RAPL, "GPU", ["GPU", "CPU package"]),
        (ORIN_NANO, "CPU", ["module", "GPU"]),
        (ORIN_NANO, "GPU", ["module", "GPU"]),
        ({}, "GPU", ["GPU"]),
        ({}, "CPU", []),
    ],
    ids=["desktop-cpu", "desktop-gpu", "jetson-cpu", "jetson-gpu", "gpu-alone", "cpu-beside-a-gpu"],
)
def test_what_works_decides_which_meter_leads(
    nvml: ModuleType, tmp_path: Path, tree: dict[str, str], works: Literal["GPU", "CPU"], covers: list[str]
) -> None:
    """A network on the CPU is never given the power of an idle GPU: without another meter it is absent."""
    nvml.gpus.append(A_GPU)
    found = search_meters(write(tmp_path, tree), works=works)
    assert [meter.covers for meter in found.meters] == covers
    if not covers:
        assert found.reasons[-1] == "NVML GPU 0 NVIDIA A covers only the GPU, but the CPU does the work"


def test_a_gpu_without_a_counter_gives_power(nvml: ModuleType, tmp_path: Path) -> None:
    """Pascal and older have no counter; a name that comes as bytes is still a name."""
    nvml.gpus.append({**B_GPU, "name": b"NVIDIA B"})
    (meter,) = find_meters(tmp_path)
    assert meter.source == "NVML GPU 0 NVIDIA B"
    with meter.open() as read:
        assert read() == Sample(power_w=30.0)


def test_a_gpu_that_tells_no_power_is_no_meter(nvml: ModuleType, tmp_path: Path) -> None:
    """NVML on a Jetson reports little: the reason names the GPU."""
    nvml.gpus.append({"name": "Orin (nvgpu)"})
    found = search_meters(tmp_path)
    assert found.meters == ()
    assert "NVML reports no power of Orin (nvgpu)" in found.reasons


def test_no_gpu_and_no_driver_have_their_reasons(nvml: ModuleType, tmp_path: Path) -> None:
    """If NVML cannot be opened or finds no GPU, the reason says so."""
    assert "NVML finds no GPU" in search_meters(tmp_path).reasons
    nvml.init_error = "Driver Not Loaded"
    assert "NVML cannot be used: Driver Not Loaded" in search_meters(tmp_path).reasons


@pytest.mark.parametrize(
    ("visible", "first"),
    [("", "NVIDIA A"), ("0,1", "NVIDIA A"), ("1,0", "NVIDIA B"), ("GPU-bbbb", "NVIDIA B"), ("-1", "NVIDIA A")],
)
def test_the_first_visible_gpu_is_the_first_meter(
    visible: str, first: str, nvml: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA_VISIBLE_DEVICES, an index or the beginning of a UUID, determines which of several GPUs comes first."""
    nvml.gpus.extend([A_GPU, B_GPU])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meters = find_meters(tmp_path)
    assert len(meters) == 2
    assert meters[0].source.endswith(first)
    with open_gpu() as gpu:
        assert gpu is not None
        assert gpu.name == first


def test_nvml_is_closed_again(nvml: ModuleType, tmp_path: Path) -> None:
    """After a search and a measurement NVML has been closed as often as opened."""
    nvml.gpus.append(A_GPU)
    with PowerMeter(root=tmp_path, hz=100):
        assert nvml.opened > 0
    assert nvml.opened == 0


def test_energy_comes_from_the_counter(nvml: ModuleType, tmp_path: Path) -> None:
    """The energy is the difference of the counter, even if the power differs; the peak comes from the power."""
    began = time.monotonic()
    nvml.gpus.append({**A_GPU, "power_mw": 500_000, "energy_mj": lambda: int((time.monotonic() - began) * 50_000)})
    with PowerMeter(root=tmp_path, hz=50) as meter:
        time.sleep(0.3)
    reading = meter.reading()
    assert reading.mean_w == pytest.approx(50, rel=0.1)
    assert reading.energy_mj == pytest.approx(50_000 * reading.seconds, rel=0.1)
    assert reading.peak_w == 500.0


def test_a_counter_that_fails_midway_is_replaced_by_power(nvml: ModuleType, tmp_path: Path) -> None:
    """The rest of the measurement is integrated from power."""
    began = time.monotonic()
    state = {**A_GPU, "power_mw": 50_000, "energy_mj": lambda: (time.monotonic() - began) * 50_000}
    nvml.gpus.append(state)
    with PowerMeter(root=tmp_path, hz=50) as meter:
        del state["energy_mj"]
        time.sleep(0.2)
    reading = meter.reading()
    assert reading.energy_mj is not None
    assert reading.mean_w == pytest.approx(50, rel=0.1)


def test_a_gpu_that_falls_off_the_bus_ends_the_energy(nvml: ModuleType, tmp_path: Path) -> None:
    """Nothing is raised; the energy is unknown and the reason names the GPU."""
    state = {"name": "NVIDIA A", "power_mw": 50_000}
    nvml.gpus.append(state)
    with PowerMeter(root=tmp_path, hz=50) as meter:
        time.sleep(0.1)
        del state["power_mw"]
        time.sleep(0.2)
    reading = meter.reading()
    assert reading.energy_mj is None
    assert reading.mean_w == pytest.approx(50)
    assert re.fullmatch(
        r"NVML GPU 0 NVIDIA A gave values for 0\.\d of \d\.\d s: NVML gives no power", reading.absent["energy_mj"]
    )


def test_temperature_clock_and_reasons_come_from_nvml(nvml: ModuleType, tmp_path: Path) -> None:
    """On a desktop GPU temperature, clock and throttling come from NVML; idling and user limits are not throttling."""
    nvml.gpus.append({**A_GPU, "temperature_c": 71, "reasons": 0x1 | 0x2 | 0x4 | 0x40})
    with PowerMeter(root=tmp_path, hz=50) as meter:
        pass
    reading = meter.reading()
    assert reading.temperatures == {"NVML NVIDIA A": Temperature(71.0, 71.0, 71.0)}
    assert reading.gpu_clock is not None
    assert reading.gpu_clock.max_mhz == 1410
    assert reading.throttling == (
        "NVML: NVIDIA A is throttled by its power limit",
        "NVML: NVIDIA A is throttled by heat (hardware)",
    )


def test_an_unthrottled_gpu_shows_no_sign(nvml: ModuleType, tmp_path: Path) -> None:
    """Throttling that was observed and did not occur is empty, unlike None."""
    nvml.gpus.append({**A_GPU, "reasons": 0x1})
    with PowerMeter(root=tmp_path) as meter:
        pass
    assert meter.reading().throttling == ()


def test_on_a_jetson_nvml_adds_to_sysfs(nvml: ModuleType, tmp_path: Path) -> None:
    """On Thor the board input is the main meter, the GPU power another, and the clock comes from devfreq."""
    nvml.gpus.append({"name": "NVIDIA Thor", "power_mw": 9_000, "clock_mhz": 1})
    with PowerMeter(root=write(tmp_path, THOR), hz=50) as meter:
        time.sleep(0.1)
    reading = meter.reading()
    assert (reading.covers, reading.mean_w) == ("board input", pytest.approx(25.0))
    assert [(other.covers, other.mean_w) for other in reading.others] == [("GPU", pytest.approx(9.0))]
    assert reading.gpu_clock is not None
    assert reading.gpu_clock.min_mhz == 1575


def test_a_driver_that_lacks_a_call_is_asked_by_its_other_name(nvml: ModuleType) -> None:
    """If the older name of a function is gone the newer one is used; without either the value is None."""
    nvml.gpus.append(A_GPU)
    nvml.nvmlDeviceGetCurrentClocksEventReasons = lambda _handle: 0x80
    del nvml.nvmlDeviceGetCurrentClocksThrottleReasons, nvml.nvmlDeviceGetTemperature
    with open_gpu() as gpu:
        assert gpu is not None
        assert gpu.throttled_by() == ("the power brake",)
        assert gpu.temperature_c() is None


def test_a_number_beyond_the_gpus_opens_none(nvml: ModuleType) -> None:
    """A GPU that has disappeared is None, and NVML is closed anyway."""
    nvml.gpus.append(A_GPU)
    with open_gpu(3) as gpu:
        assert gpu is None
    assert nvml.opened == 0


def test_an_error_of_the_block_is_the_callers(nvml: ModuleType) -> None:
    """Exceptions of the measured code pass through, including OSError."""
    nvml.gpus.append(A_GPU)
    with pytest.raises(OSError, match="the caller's"), open_gpu():
        raise OSError("the caller's")
    assert nvml.opened == 0
