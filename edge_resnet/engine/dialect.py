"""What the TensorRT at hand takes, told by what it has and not by a list of versions. Constructs nothing of it."""

from __future__ import annotations

import re
from types import ModuleType

from edge_resnet.artifact.enginecache import EngineDialect
from edge_resnet.core.errors import BackendError, ConfigError

__all__ = ["dialect_of", "network_flags", "version_of"]


#: Weak typing is deprecated from 10.12 on and gone in 11; strong typing is whole from 10.12 on (NVIDIA's migration guide).
_STRONG_FROM = (10, 12)
_OLDEST = (8, 6)


def version_of(trt: ModuleType) -> tuple[int, ...]:
    """(major, minor, patch …). Raises BackendError below 8.6, and for a module that says no version."""
    text = str(getattr(trt, "__version__", ""))
    version = tuple(int(number) for number in re.findall(r"\d+", text)[:4])
    if not version:
        raise BackendError("the tensorrt package says no version", hint="pip install --force-reinstall tensorrt")
    if version < _OLDEST:
        raise BackendError(f"TensorRT {text} is too old: 8.6 or newer is needed", hint="JetPack 6.0 or newer brings it")
    return version


def dialect_of(trt: ModuleType) -> EngineDialect:
    """Which graph and flags this TensorRT wants."""
    version = version_of(trt)
    if not hasattr(trt.BuilderFlag, "FP16"):
        return "strong"
    return "strong" if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") and version >= _STRONG_FROM else "weak"


def network_flags(trt: ModuleType, dialect: EngineDialect) -> int:
    """The bits for ``create_network``: the batch is explicit where that is still said, and types are strong where asked for.

    Raises ConfigError where this TensorRT cannot do the dialect.
    """
    flags = trt.NetworkDefinitionCreationFlag
    bits = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    if dialect == "strong":
        if not hasattr(flags, "STRONGLY_TYPED"):
            raise ConfigError(f"TensorRT {trt.__version__} knows no strong typing", hint="compile the weak dialect")
        bits |= 1 << int(flags.STRONGLY_TYPED)
    elif not hasattr(trt.BuilderFlag, "FP16"):
        raise ConfigError(f"TensorRT {trt.__version__} knows no weak typing", hint="compile the strong dialect")
    return bits
