"""Power and heat while something runs: energy, watts, temperatures, clocks, throttling. Knows nothing of networks.

Meters: INA3221 and INA238 on Jetson boards, NVML on NVIDIA GPUs, RAPL on x86 processors. What a figure covers differs
between them (a whole board, a module, a GPU, a processor), so it is part of every result. What this machine cannot tell is
None with a reason, never zero.
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
