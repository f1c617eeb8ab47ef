"""Whether bfloat16 is fast here. Knows nothing of networks."""

from __future__ import annotations

from pathlib import Path

import torch

from edge_resnet.train.options import TrainPrecision

__all__ = ["uses_bf16"]

#: What Linux calls instructions that multiply bfloat16: AMX and AVX512 on x86, ARM's from v8.6 on.
_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
_CPUINFO = Path("/proc/cpuinfo")


def uses_bf16(precision: TrainPrecision, device: torch.device) -> bool:
    """Whether to compute in bfloat16 under autocast; ``auto`` does where the device has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(_FLAGS & _cpu_flags())


def _cpu_flags() -> set[str]:
    """The first processor's features; none where the system does not list them."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))), "").split())
