"""Power and heat while something runs: energy, power, temperatures, clocks, throttling. Does not know about networks.

Meters: INA3221 and INA238 on Jetson boards, NVML on NVIDIA GPUs, RAPL on x86 CPUs. They cover different parts (a whole board, a
module, a GPU, a CPU), so what a figure covers is part of every result. What cannot be measured is None with a reason, never zero.
"""

from edge_resnet.device.power.meter import FoundMeters, PowerMeter, find_meters, search_meters
from edge_resnet.device.power.records import ClockRange, Covers, Energy, Meter, PowerReading, Sample, Temperature

__all__ = [
    "ClockRange",
    "Covers",
    "Energy",
    "FoundMeters",
    "Meter",
    "PowerMeter",
    "PowerReading",
    "Sample",
    "Temperature",
    "find_meters",
    "search_meters",
]
