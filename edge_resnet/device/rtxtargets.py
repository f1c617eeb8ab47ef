"""The GPUs that TensorRT for RTX compiles for: compute capabilities, and the names of groups of them. Loads no library.

From its support matrix and the guide "CPU-Only AOT and TensorRT-RTX Engines": one plan serves Ampere, Ada and Blackwell; one that
also serves Turing is slower everywhere, so that Turing gets its own. Hopper, data-centre Blackwell and Jetson are not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.device.gpu import Gpu

__all__ = ["GROUPS", "is_known_gpu", "parse_targets", "refuse_gpu", "targets_for"]

_TURING = "7.5"
_PORTABLE = ("8.0", "8.6", "8.9", "12.0")
#: Name → compute capabilities of one plan.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType({"ampere+": _PORTABLE, "turing": (_TURING,)})
#: 12.1, NVIDIA GB10, is in no group: NVIDIA's guide does not list it among the GPUs of the portable plan.
_KNOWN = (_TURING, *_PORTABLE, "12.1")


def parse_targets(text: str) -> tuple[str, ...]:
    """The name of a group, or compute capabilities such as ``8.6,8.9``, in ascending order without repetitions.

    Raises ConfigError for anything else, with a list of what is known, and for Turing together with later GPUs.
    """
    hint = f"give {' or '.join(GROUPS)}, or compute capabilities, separated by commas: {', '.join(_KNOWN)}"
    name = text.strip().lower()
    asked = GROUPS.get(name) or tuple(part.strip() for part in name.split(","))
    unknown = [part for part in asked if part not in _KNOWN]
    if unknown:
        raise ConfigError(f"TensorRT for RTX does not compile for the target {text.strip()!r}", hint=hint)
    if _TURING in asked and len(set(asked)) > 1:
        raise ConfigError(
            "one plan for Turing and later GPUs is slower on both", hint="compile once for each: --target turing, then ampere+"
        )
    return tuple(capability for capability in _KNOWN if capability in asked)


def targets_for(compute_capability: str) -> tuple[str, ...]:
    """The targets of the plan that suits this GPU; those of the portable plan if it is empty or runs none."""
    groups = (*GROUPS.values(), ("12.1",))
    return next((group for group in groups if compute_capability in group), _PORTABLE)


def is_known_gpu(compute_capability: str) -> bool:
    """Whether TensorRT for RTX runs on a GPU of that compute capability."""
    return compute_capability in _KNOWN


def refuse_gpu(gpu: Gpu) -> None:
    """Raise BackendError for a GPU that TensorRT for RTX does not run on."""
    if not is_known_gpu(gpu.compute_capability):
        raise BackendError(
            f"TensorRT for RTX does not run on {gpu.name}, compute capability {gpu.compute_capability}",
            hint="it is for GeForce and RTX GPUs from Turing on; use the backend tensorrt if TensorRT supports this GPU",
        )
