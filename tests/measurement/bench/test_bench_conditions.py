"""The conditions of a measurement, read from simulated machines and from this one, and the caveats that follow."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edge_resnet.device.power import PowerReading
from edge_resnet.measurement.bench.caveats import caveats_of_heat, caveats_of_machine, caveats_of_run
from edge_resnet.measurement.bench.conditions import Conditions, ConditionsMonitor, gpu_memory_mib
from edge_resnet.measurement.bench.result import Metric
from edge_resnet.measurement.bench.timing import Limits, Timings, WarmUp

QUIET = Conditions(0.1, 0.01, (2000, 2000), (900, 900), 0, 0)
CERTAIN = Metric("p90_ms", 10.0, (9.0, 11.0), certain=True)
WARM = WarmUp(100, 1.0, settled=True)
MS = 1_000_000


class Machine:
    """Files of a machine whose cores all report the same."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/loadavg", "0.52 0.58 0.59 1/467 12345\n")
        self.clock(2_000_000)
        self.busy(1000)
        self.swapped(5, 7)

    def write(self, name: str, text: str) -> None:
        """A file under the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def clock(self, khz: int) -> None:
        """Every core's clock."""
        for core in os.sched_getaffinity(0):
            self.write(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", f"{khz}\n")

    def gpu_clock(self, hz: int) -> None:
        """The clock of a Jetson's GPU."""
        for name, value in (("cur", hz), ("min", 300_000_000), ("max", 900_000_000)):
            self.write(f"sys/class/devfreq/17000000.gpu/{name}_freq", f"{value}\n")

    def busy(self, ticks: int) -> None:
        """User time; idle time must not count."""
        lines = [f"cpu{core} {ticks} 0 0 999999 55 0 0 0 0 0" for core in os.sched_getaffinity(0)]
        self.write(
            "proc/stat", "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "cpu99999 999 0 0 0 0 0 0 0 0 0", "intr 1"]) + "\n"
        )

    def swapped(self, pages_in: int, pages_out: int) -> None:
        """Pages swapped since boot."""
        self.write("proc/vmstat", f"pgpgin 1\npswpin {pages_in}\npswpout {pages_out}\n")

    def throttled(self, count: int) -> None:
        """How often each core throttled since boot."""
        for core in os.sched_getaffinity(0):
            self.write(f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", f"{count}\n")


def test_a_machine_that_reports_nothing(tmp_path: Path) -> None:
    """What cannot be read is None and gives no caveat."""
    conditions = ConditionsMonitor(tmp_path).finish()
    assert conditions == Conditions(None, None, None, None, None, None)
    assert caveats_of_machine(conditions) == []


def test_a_quiet_machine(tmp_path: Path) -> None:
    """Its clocks and counters stay, and there is no caveat."""
    machine = Machine(tmp_path)
    machine.throttled(3)
    machine.gpu_clock(900_000_000)
    conditions = ConditionsMonitor(tmp_path).finish()
    assert conditions == Conditions(0.52, 0.0, (2000, 2000), (900, 900), 0, 0)
    assert caveats_of_machine(conditions) == []


def test_other_programs_are_noticed(tmp_path: Path) -> None:
    """Busy time of this process's cores that it did not use itself is of others; other cores do not count."""
    machine = Machine(tmp_path)
    monitor = ConditionsMonitor(tmp_path)
    time.sleep(0.1)
    machine.busy(1000 + 10 * os.sysconf("SC_CLK_TCK"))
    conditions = monitor.finish()
    assert conditions.others_share == 1
    assert caveats_of_machine(replace(conditions, others_share=0.066)) == [
        "other programs used 7 % of the cores: stop them, then measure again"
    ]


def test_own_work_is_not_others(tmp_path: Path) -> None:
    """What this process used itself is subtracted."""
    machine = Machine(tmp_path)
    monitor = ConditionsMonitor(tmp_path)
    started = time.process_time()
    while time.process_time() - started < 0.2:
        pass
    ticks = int(0.2 * os.sysconf("SC_CLK_TCK") / len(os.sched_getaffinity(0)))
    machine.busy(1000 + ticks)
    assert monitor.finish().others_share == pytest.approx(0, abs=0.02)


def test_a_falling_clock_is_noticed(tmp_path: Path) -> None:
    """The lowest and highest clock of all samples; a tenth less gives a caveat."""
    machine = Machine(tmp_path)
    machine.gpu_clock(900_000_000)
    monitor = ConditionsMonitor(tmp_path)
    machine.clock(1_500_000)
    machine.gpu_clock(600_000_000)
    monitor.sample()
    machine.clock(2_000_000)
    conditions = monitor.finish()
    assert (conditions.cpu_mhz, conditions.gpu_mhz) == ((1500, 2000), (600, 900))
    assert [line.partition(":")[0] for line in caveats_of_machine(conditions)] == [
        "the processor clock varied between 1500 and 2000 MHz",
        "the GPU clock varied between 600 and 900 MHz",
    ]


def test_swapping_and_heat_are_noticed(tmp_path: Path) -> None:
    """Pages swapped since the start, and the processor's own count of throttling."""
    machine = Machine(tmp_path)
    machine.throttled(3)
    monitor = ConditionsMonitor(tmp_path)
    machine.swapped(9, 8)
    machine.throttled(4)
    conditions = monitor.finish()
    assert conditions.swapped_pages == 5
    assert conditions.throttled == len(os.sched_getaffinity(0))
    assert len(caveats_of_machine(conditions)) == 2


def test_this_machine() -> None:
    """The load is known here, and the share of other programs lies in 0 to 1."""
    monitor = ConditionsMonitor()
    time.sleep(0.05)
    conditions = monitor.finish()
    assert conditions.load_average is not None
    assert conditions.others_share is None or 0 <= conditions.others_share <= 1


@pytest.mark.parametrize(
    ("script", "mib"),
    [("echo 1234; echo 5", 1234), ("echo '[N/A]'", None), ("echo 7; exit 9", None)],
    ids=["reported", "not reported", "failed"],
)
def test_memory_of_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, mib: int | None) -> None:
    """The first GPU's, if nvidia-smi reports it."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory_mib() == mib


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvidia-smi it is unknown."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory_mib() is None


def run(samples_ms: list[float], *, complete: bool = True, interrupted: bool = False) -> Timings:
    return Timings([round(ms * MS) for ms in samples_ms], 0, complete, interrupted)


def test_a_good_run_has_no_caveat() -> None:
    """Even samples, complete, after a warm-up that settled."""
    assert caveats_of_run(run([10.0] * 1024), CERTAIN, WARM, Limits(10, 1024), 0.009) == []


@pytest.mark.parametrize(
    ("timings", "metric", "warm", "text"),
    [
        (run([10.0] * 7, complete=False, interrupted=True), CERTAIN, WARM, "interrupted after 7 queries"),
        (run([100.0] * 20, complete=False), CERTAIN, WARM, "stopped after 2 s with 20 of 1024 queries"),
        (
            run([10.0] * 50),
            replace(CERTAIN, name="p99_ms", certain=False),
            WARM,
            "50 queries are too few for the interval of p99_ms",
        ),
        (run([10.0] * 50), CERTAIN, replace(WARM, settled=False), "had not settled after 1 s"),
        (run([10.0] * 200 + [11.0] * 100), CERTAIN, WARM, "the end of the run was 10 % slower"),
    ],
    ids=["interrupted", "too slow", "too few", "cold", "drift"],
)
def test_each_caveat_is_given(timings: Timings, metric: Metric, warm: WarmUp, text: str) -> None:
    """One line per reason."""
    found = caveats_of_run(timings, metric, warm, Limits(1, 1024), 0)
    assert len(found) == 1
    assert text in found[0]


def test_overhead_is_a_caveat() -> None:
    """Above 1 % of the time."""
    (line,) = caveats_of_run(run([1.0] * 100), CERTAIN, WARM, Limits(0.1, 100), 0.029)
    assert line == "measuring took 2.9 % of the time: the queries are very short"


READING = PowerReading(
    energy_mj=6000.0, mean_w=6.0, peak_w=7.0, seconds=1.0, samples=11, covers="module", source="INA3221 VDD_IN", others=(),
    temperatures=None, gpu_clock=None, cpu_clock=None, throttling=(), power_mode=None, absent={}, notes=(), sampling_cpu_s=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("reading", "lines"),
    [
        (None, []),
        (READING, []),
        (replace(READING, throttling=None, absent={"throttling": "nothing here would tell"}), []),
        (
            replace(
                READING,
                throttling=("NVML: NVIDIA A is throttled by heat (hardware)", "over-current counter oc3_event_cnt rose by 1"),
            ),
            [
                "throttled: NVML: NVIDIA A is throttled by heat (hardware)",
                "throttled: over-current counter oc3_event_cnt rose by 1",
            ],
        ),
        (
            replace(
                READING, energy_mj=None, absent={"energy_mj": "gave values for 0.2 of 1.0 s"}, notes=("gave no value 9 times",)
            ),
            ["power: gave no value 9 times", "the energy is unknown: gave values for 0.2 of 1.0 s"],
        ),
        (replace(READING, energy_mj=None, source=None, absent={"energy_mj": "no RAPL counter"}), []),
    ],
    ids=["not requested", "quiet", "not reported", "throttled", "a sensor failed", "no sensor"],
)
def test_caveats_from_sensors(reading: PowerReading | None, lines: list[str]) -> None:
    """Every sign of throttling and every failing sensor gives a caveat; a machine without sensors gives none."""
    assert caveats_of_heat(reading) == lines
