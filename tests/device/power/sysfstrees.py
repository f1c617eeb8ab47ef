"""Folders that imitate the sysfs of boards with JetPack 4 to 7 and of an x86 machine. Written by hand, not recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["AGX_ORIN", "CLOCK", "NANO", "ORIN_NANO", "RAPL", "THOR", "XAVIER_NX", "as_nobody", "iio", "ina3221", "write"]

CLOCK = "sys/class/devfreq/17000000.gpu"


def write(root: Path, files: dict[str, str]) -> Path:
    """Write or replace each file atomically: a reader sees the old or the new value."""
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(f"{value}\n")
        fresh.replace(path)
    return root


@contextmanager
def as_nobody() -> Iterator[None]:
    """Drop the rights of root, who could read everything; no effect for other users."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def ina3221(device: str, number: int, rails: tuple[tuple[str, int, int], ...]) -> dict[str, str]:
    """A sensor as on JetPack 5 and newer: (label, mV, mA) per channel; a channel without a label is off."""
    folder = f"sys/bus/i2c/devices/{device}/hwmon/hwmon{number}"
    files = {f"sys/bus/i2c/devices/{device}/name": "ina3221", f"{folder}/name": "ina3221"}
    for channel, (label, millivolt, milliampere) in enumerate(rails, start=1):
        if label:
            files |= {
                f"{folder}/in{channel}_label": label,
                f"{folder}/in{channel}_input": str(millivolt),
                f"{folder}/curr{channel}_input": str(milliampere),
                f"{folder}/curr{channel}_crit": "32760",
                f"{folder}/curr{channel}_crit_alarm": "0",
                f"{folder}/curr{channel}_max_alarm": "0",
            }
    return files | {f"{folder}/in7_label": "sum of shunt voltages", f"{folder}/in7_input": "12", f"{folder}/curr4_input": "9999"}


def iio(device: str, rails: tuple[tuple[str, int], ...]) -> dict[str, str]:
    """A sensor as on JetPack 4: (label, mW) per channel."""
    folder = f"sys/bus/i2c/devices/{device}/iio:device0"
    files = {f"sys/bus/i2c/devices/{device}/name": "ina3221x"}
    for channel, (label, milliwatt) in enumerate(rails):
        files |= {f"{folder}/rail_name_{channel}": label, f"{folder}/in_power{channel}_input": str(milliwatt)}
    return files


def _zones(**zones: int) -> dict[str, str]:
    files = {}
    for index, (name, millidegrees) in enumerate(zones.items()):
        folder = f"sys/class/thermal/thermal_zone{index}"
        files |= {f"{folder}/type": name.replace("_", "-"), f"{folder}/temp": str(millidegrees)}
    return files


NANO = {
    **iio("6-0040", (("POM_5V_IN", 2532), ("POM_5V_GPU", 40), ("POM_5V_CPU", 610))),
    **_zones(AO_therm=41000, CPU_therm=33500, GPU_therm=31500, PMIC_Die=100000),
    "sys/class/devfreq/57000000.gpu/cur_freq": "921600000",
    "sys/class/devfreq/57000000.gpu/min_freq": "76800000",
    "sys/class/devfreq/57000000.gpu/max_freq": "921600000",
}
XAVIER_NX = {
    **ina3221("7-0040", 3, (("VDD_IN", 5000, 900), ("VDD_CPU_GPU_CV", 5000, 300), ("VDD_SOC", 5000, 200))),
    **_zones(CPU_therm=45000, GPU_therm=44500, PMIC_Die=50000),
}
ORIN_NANO = {
    "sys/bus/i2c/devices/i2c-1/name": "c240000.i2c",
    **ina3221("1-0040", 1, (("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 500), ("VDD_SOC", 5000, 250))),
    **_zones(cpu_thermal=50500, gpu_thermal=51250, tj_thermal=52000, cv0_thermal=-256000),
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "3",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device1/cur_state": "0",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37",
    f"{CLOCK}/cur_freq": "624750000",
    f"{CLOCK}/min_freq": "306000000",
    f"{CLOCK}/max_freq": "624750000",
    "sys/devices/platform/gpu.0/load": "0",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "729600",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >",
    "var/lib/nvpmodel/status": "pmode:0002",
}
AGX_ORIN = {
    **ina3221("1-0040", 3, (("VDD_GPU_SOC", 20000, 150), ("VDD_CPU_CV", 20000, 50), ("VIN_SYS_5V0", 5000, 800))),
    **ina3221("1-0041", 4, (("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 200), ("", 0, 0))),
}
THOR = {
    **ina3221("2-0040", 5, (("VDD_GPU", 20000, -20), ("VDD_CPU_SOC_MSS", 20000, 300), ("VIN_SYS_5V0", 5000, 1300))),
    "sys/bus/i2c/devices/2-0044/name": "ina238",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon6/power1_input": "25000000",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon6/in1_input": "19800",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon6/curr1_input": "1262",
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000",
    "sys/class/devfreq/gpu-gpc-0/min_freq": "315000000",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000",
}
RAPL = {
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "700",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:1/name": "psys",
    "sys/class/powercap/intel-rapl:1/energy_uj": "9000",
    "sys/class/powercap/intel-rapl:1/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
    "sys/class/powercap/intel-rapl-mmio:0/energy_uj": "1000",
    "sys/class/powercap/intel-rapl-mmio:0/max_energy_range_uj": "262143328850",
}
