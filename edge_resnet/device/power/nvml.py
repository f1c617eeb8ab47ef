"""NVIDIA GPUs through NVML: energy, power, temperature, clock, throttling. Any of them may be missing on a GPU.

Does not read sysfs. On a Jetson NVML is absent (JetPack 5) or supports few calls (JetPack 6 and 7).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from edge_resnet.device.power.records import Meter, Read, Sample

__all__ = ["NvmlGpu", "gpu_meters", "open_gpu"]

#: NVML, nvmlClocksEventReasons: the bits that mean throttled, rather than idle or limited by the user.
_THROTTLED = {
    0x04: "its power limit", 0x08: "hardware slowdown", 0x20: "heat (software)", 0x40: "heat (hardware)", 0x80: "the power brake",
}  # fmt: skip


@dataclass(frozen=True)
class NvmlGpu:
    """An open GPU. Methods return None if NVML does not report the value; they raise nothing."""

    pynvml: ModuleType
    handle: object
    name: str

    def power_w(self) -> float | None:
        """Power of the card in W; on many GPUs the mean of the last second."""
        return _over_1000(self._ask("nvmlDeviceGetPowerUsage"))

    def energy_mj(self) -> float | None:
        """Energy in mJ since the driver was loaded (Volta and newer)."""
        return self._ask("nvmlDeviceGetTotalEnergyConsumption")

    def temperature_c(self) -> float | None:
        """Temperature of the chip in °C."""
        return self._ask("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU")

    def clock_mhz(self) -> float | None:
        """Clock of the multiprocessors in MHz."""
        return self._ask("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM")

    def throttled_by(self) -> tuple[str, ...] | None:
        """What throttles the GPU now; empty if nothing does."""
        # The first is the older name, which newer libraries keep; older libraries lack the second.
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        if bits is None:
            bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        return None if bits is None else tuple(reason for bit, reason in _THROTTLED.items() if int(bits) & bit)

    def _ask(self, function: str, kind: str | None = None) -> float | None:
        try:
            call: Callable[..., int] = getattr(self.pynvml, function)
            return call(self.handle, *([] if kind is None else [getattr(self.pynvml, kind)]))
        # AttributeError: pynvml or the driver's library lacks the function.
        except (self.pynvml.NVMLError, AttributeError, OSError):
            return None


def gpu_meters() -> tuple[tuple[Meter, ...], str]:
    """A meter per GPU that reports energy or power, the first of CUDA_VISIBLE_DEVICES first; or none and the reason."""
    meters, silent = [], []
    try:
        with _library() as pynvml:
            for index in _indices(pynvml):
                gpu = _gpu(pynvml, index)
                if gpu.energy_mj() is None and gpu.power_w() is None:
                    silent.append(gpu.name)
                else:
                    meters.append(Meter(f"NVML GPU {index} {gpu.name}", "GPU", partial(_reader, index)))
    except OSError as error:
        return (), str(error)
    reason = f"NVML reports no power of {', '.join(silent)}" if silent else "NVML finds no GPU"
    return tuple(meters), "" if meters else reason


@contextmanager
def open_gpu(index: int | None = None) -> Iterator[NvmlGpu | None]:
    """The GPU with that NVML index, by default the first of CUDA_VISIBLE_DEVICES; None if there is none."""
    with ExitStack() as stack:
        gpu = None
        with suppress(OSError):
            pynvml = stack.enter_context(_library())
            indices = _indices(pynvml) if index is None else [index]
            gpu = _gpu(pynvml, indices[0]) if indices else None
        yield gpu


@contextmanager
def _reader(index: int) -> Iterator[Read]:
    with open_gpu(index) as gpu:

        def read() -> Sample:
            sample = Sample() if gpu is None else Sample(gpu.power_w(), gpu.energy_mj())
            if sample == Sample():
                raise OSError("NVML gives no power")
            return sample

        yield read


@contextmanager
def _library() -> Iterator[ModuleType]:
    """pynvml with NVML initialised. Raises OSError with the reason."""
    try:
        import pynvml
    except ImportError:
        raise OSError("pynvml is not installed: pip install nvidia-ml-py") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise OSError(f"NVML cannot be used: {error}") from None
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _indices(pynvml: ModuleType) -> list[int]:
    """NVML's indices of all GPUs, the visible one first. CUDA may number different GPUs in another order (CUDA_DEVICE_ORDER)."""
    try:
        indices = list(range(pynvml.nvmlDeviceGetCount()))
        wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        return sorted(indices, key=lambda index: not _is(pynvml, index, wanted))
    except pynvml.NVMLError as error:
        raise OSError(f"NVML cannot be used: {error}") from None


def _is(pynvml: ModuleType, index: int, wanted: str) -> bool:
    """Whether ``wanted``, from CUDA_VISIBLE_DEVICES, is this GPU's index or the beginning of its UUID."""
    if not wanted.startswith("GPU-"):
        return wanted == str(index)
    return _string(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))).startswith(wanted)


def _gpu(pynvml: ModuleType, index: int) -> NvmlGpu:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        return NvmlGpu(pynvml, handle, _string(pynvml.nvmlDeviceGetName(handle)))
    except pynvml.NVMLError as error:
        raise OSError(f"NVML cannot open GPU {index}: {error}") from None


def _string(value: str | bytes) -> str:
    # bytes before nvidia-ml-py 11.515.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _over_1000(value: float | None) -> float | None:
    return None if value is None else value / 1000
