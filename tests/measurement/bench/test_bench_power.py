"""Power and temperatures of a benchmark: readings reach the record and its file, and missing ones are absent."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device.power.sysfstrees import AGX_ORIN, NANO, ORIN_NANO, RAPL, THOR, XAVIER_NX, write
from scripted import HandClock, Scripted, TwoSlots

from edge_resnet.artifact.folder import Artifact
from edge_resnet.device.power import Meter, PowerMeter, Sample, search_meters
from edge_resnet.device.power.meter import FoundMeters
from edge_resnet.measurement.bench.bench import bench
from edge_resnet.measurement.bench.result import BenchResult, read_result, to_json, write_results
from edge_resnet.measurement.bench.rules import BenchOptions
from edge_resnet.runtime.backend import Images, Logits

pytestmark = pytest.mark.usefixtures("brief_bench")
QUICK = BenchOptions(seconds=0.2, min_queries=20, starts=0, frame=(64, 48))
CURRENT = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input"

On = Callable[[dict[str, str] | Sequence[Meter]], None]


class Real(Scripted):
    """Sleeps for two milliseconds of real time in every call, and does something before."""

    def __init__(self, does: Callable[[int], object] = lambda _: None) -> None:
        super().__init__(HandClock(), ())
        self._does, self._calls = does, 0

    def infer(self, images: Images) -> Logits:
        """Sleep."""
        self._calls += 1
        self._does(self._calls)
        time.sleep(0.002)
        return np.zeros((len(images), self.classes), np.float32)


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> On:
    """Makes bench find the sensors of a board's file tree, or these meters, sampled a hundred times per second."""
    monkeypatch.setitem(sys.modules, "pynvml", None)

    def become(what: dict[str, str] | Sequence[Meter]) -> None:
        if isinstance(what, dict):
            write(tmp_path / "board", what)
            monkeypatch.setattr(
                "edge_resnet.measurement.bench.bench.search_meters", lambda works: search_meters(tmp_path / "board", works)
            )
        else:
            monkeypatch.setattr("edge_resnet.measurement.bench.bench.search_meters", lambda works: FoundMeters(tuple(what), ()))
        monkeypatch.setattr(
            "edge_resnet.measurement.bench.bench.PowerMeter", lambda found: PowerMeter(found, root=tmp_path / "board", hz=100)
        )

    return become


def constant(watts: float) -> Meter:
    return Meter("a constant", "module", lambda: nullcontext(lambda: Sample(power_w=watts)))


@pytest.mark.parametrize(
    ("tree", "watts", "source"),
    [
        pytest.param(NANO, 2.532, "INA3221 POM_5V_IN", id="nano-jetpack4"),
        pytest.param(XAVIER_NX, 4.5, "INA3221 VDD_IN", id="xavier-nx-jetpack5"),
        pytest.param(ORIN_NANO, 6.0, "INA3221 VDD_IN", id="orin-nano-jetpack6"),
        pytest.param(AGX_ORIN, 8.0, "INA3221 VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", id="agx-orin-jetpack6"),
        pytest.param(THOR, 25.0, "INA238 VIN", id="thor-jetpack7"),
    ],
)
def test_a_boards_power_is_the_records(
    on: On, tiny_artifacts: dict[str, Artifact], tree: dict[str, str], watts: float, source: str
) -> None:
    """On every board: the power of its input or the sum of its rails, and the energy per image at the measured rate."""
    on(tree)
    result = bench(tiny_artifacts["int8"], QUICK, network=Real())
    assert result.power is not None
    assert (result.power.source, result.power.mean_w) == (source, pytest.approx(watts))
    assert result.mj_per_image == pytest.approx(1000 * watts / result.throughput_per_s)
    assert result.mj_per_image == pytest.approx(result.power.mj_per(result.count), rel=0.25)


def test_temperatures_and_clocks(on: On, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """Temperatures before, after and at their maximum, clocks and the power mode; heat during the run gives a caveat."""
    on(ORIN_NANO)
    zone, cooler = "sys/class/thermal/thermal_zone2/temp", "sys/class/thermal/cooling_device1/cur_state"

    def heat(call: int) -> None:
        if call == 80:
            write(tmp_path / "board", {zone: "88000", cooler: "1"})

    result = bench(tiny_artifacts["int8"], replace(QUICK, seconds=0.7), network=Real(heat))
    assert result.power is not None
    assert result.power.temperatures is not None
    seen = result.power.temperatures["tj-thermal"]
    assert (seen.before_c, seen.after_c, seen.max_c) in {(52, 88, 88), (88, 88, 88)}
    assert result.power.gpu_clock is not None
    assert result.power.gpu_clock.max_mhz == 624
    assert result.power.power_mode == "MAXN_SUPER"
    assert "throttled: cooling device gpu-throttle-alert is active" in result.warnings


@pytest.mark.alone
def test_only_the_measured_time_counts(on: On, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """The power of the warm-up and of the stages is not included."""
    on(ORIN_NANO)
    network = Real()
    warm: list[int] = []

    def draw(call: int) -> None:
        measuring = any(thread.name == "edge-resnet-power" for thread in threading.enumerate())
        warm.append(not measuring)
        write(tmp_path / "board", {CURRENT: "1200" if measuring else "9000"})

    write(tmp_path / "board", {CURRENT: "1200"})
    network._does = draw
    result = bench(tiny_artifacts["int8"], replace(QUICK, seconds=0.5), network=network)
    assert any(warm)
    assert result.power is not None
    assert result.power.mean_w == pytest.approx(6, rel=0.35)
    assert result.power.mean_w < 15


def test_overlapping_batches_do_not_count_twice(on: On, tiny_artifacts: dict[str, Artifact]) -> None:
    """Offline more batches run than are counted; the energy per image is still mean power times time."""
    on([constant(10.0)])
    clock = HandClock()
    options = replace(QUICK, scenario="offline", batch=16, min_queries=30)
    result = bench(tiny_artifacts["int8"], options, network=TwoSlots(clock, repeat(40.0)), clock=clock)
    assert result.mj_per_image == pytest.approx(10 * 1000 * 0.040 / 16)


def test_without_a_meter_it_is_absent(on: On, tiny_artifacts: dict[str, Artifact]) -> None:
    """None with the reasons, never zero, and no caveat: most machines have no meter."""
    on({})
    result = bench(tiny_artifacts["int8"], QUICK, network=Real())
    assert result.power is not None
    assert (result.power.energy_mj, result.power.mean_w, result.mj_per_image) == (None, None, None)
    assert "no INA3221 or INA238 sensor" in result.power.absent["energy_mj"]
    assert not any("energy" in warning or "power" in warning for warning in result.warnings)


def test_a_meter_that_fails_midway(on: On, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """The queries are complete, the energy is unknown, and a caveat says for how long there were values."""
    on(ORIN_NANO)

    def fail(call: int) -> None:
        if call == 90:
            (tmp_path / "board" / CURRENT).unlink()

    result = bench(tiny_artifacts["int8"], replace(QUICK, seconds=0.6), network=Real(fail))
    assert result.count >= 20
    assert result.mj_per_image is None
    assert any(warning.startswith("the energy is unknown: INA3221 VDD_IN gave values for") for warning in result.warnings)


def test_power_is_optional(on: On, tiny_artifacts: dict[str, Artifact]) -> None:
    """Without it no sensor is searched."""
    on([constant(10.0)])
    result = bench(tiny_artifacts["int8"], replace(QUICK, power=False), network=Real())
    assert (result.power, result.mj_per_image) == (None, None)


def test_the_meter_covers_the_processor_that_computes(
    tiny_artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The meters that bench looks for depend on where the network runs."""
    asked: list[Any] = []
    monkeypatch.setattr(
        "edge_resnet.measurement.bench.bench.search_meters",
        lambda works: (asked.append(works), search_meters(write(tmp_path, RAPL), works))[1],
    )
    gpu = Real()
    gpu.name = "tensorrt"
    monkeypatch.setattr("edge_resnet.measurement.bench.bench.gpu_memory_mib", lambda: None)
    monkeypatch.setattr("edge_resnet.measurement.bench.bench._engine_bytes", lambda *_: 1)
    found = [bench(tiny_artifacts["int8"], QUICK, network=network) for network in (Real(), gpu)]
    assert asked == ["CPU", "GPU"]
    assert [result.power is not None and result.power.source for result in found] == ["RAPL package-0", None]


def whole(on: On, artifact: Artifact) -> BenchResult:
    on([constant(10.0)])
    return bench(artifact, QUICK, network=Real())


def test_it_is_in_the_file(on: On, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """It is read back unchanged, and the schema is still 1."""
    result = whole(on, tiny_artifacts["int8"])
    write_results(tmp_path / "b.json", [result])
    assert read_result(tmp_path / "b.json") == result
    record = json.loads(to_json([result], samples=False))
    assert record["schema_version"] == 1
    assert record["power"]["mean_w"] == pytest.approx(10)
    assert record["mj_per_image"] == pytest.approx(result.mj_per_image)


def test_older_files_are_read(on: On, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """A file from before power was measured has none."""
    result = whole(on, tiny_artifacts["int8"])
    record = json.loads(to_json([result], samples=True))
    del record["power"], record["mj_per_image"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(record))
    assert read_result(path) == replace(result, power=None, mj_per_image=None)


def test_sampling_is_part_of_the_overhead(on: On, tiny_artifacts: dict[str, Artifact]) -> None:
    """A sensor that keeps the CPU busy for a tenth of the time makes the overhead a tenth, and gives a caveat."""

    def busy() -> Sample:
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass
        return Sample(power_w=5)

    on([Meter("a busy one", "module", lambda: nullcontext(busy))])
    result = bench(tiny_artifacts["int8"], replace(QUICK, seconds=0.5), network=Real())
    assert 0.02 < result.overhead_share < 0.3
    assert any(warning.startswith("measuring took ") for warning in result.warnings)
