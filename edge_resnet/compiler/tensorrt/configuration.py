"""Options → the settings of TensorRT's builder, each read back after it is set. Loads no TensorRT, and builds nothing.

A library may accept a setting without an error and ignore it: an option that was asked for and is not in effect is an error.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.runtime.tensorrt.library import library_of

__all__ = ["configure"]

_MIB = 1 << 20
#: The flags of a weakly typed network.
_PRECISION_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8")}


def configure(trt: ModuleType, config: Any, request: PlanRequest, workspace_mib: int | None) -> None:
    """Set what the request asks for, and the listing of layers in detail.

    Raises ConfigError for an option that this library lacks or ignores, and BuildError for a precision that it does not take.
    """
    if request.typing == "weak":
        for name in _PRECISION_FLAGS[request.options.precision]:
            if not _set_flag(trt, config, name):
                title = f"{library_of(trt).title} {trt.__version__}"
                raise BuildError(f"{title} has no {name} of weak typing", hint="edge-resnet doctor checks TensorRT")
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if workspace_mib is not None:
        _limit_workspace(trt, config, workspace_mib)
    _tune(trt, config, request.options.tuning)
    if request.targets:
        _aim(trt, config, tuple(dict.fromkeys(request.targets)))


def _tune(trt: ModuleType, config: Any, tuning: EngineTuning) -> None:
    if tuning.version_compatible and not _set_flag(trt, config, "VERSION_COMPATIBLE"):
        raise _not_offered(trt, "version-compatible")
    if tuning.level is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise _not_offered(trt, "level")
        config.builder_optimization_level = tuning.level
        if config.builder_optimization_level != tuning.level:
            raise _ignored(trt, "level", f"{config.builder_optimization_level}")
    if tuning.hardware_compatible:
        if not hasattr(trt, "HardwareCompatibilityLevel"):
            raise _not_offered(trt, "hardware-compatible")
        wanted = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        config.hardware_compatibility_level = wanted
        if config.hardware_compatibility_level != wanted:
            raise _ignored(trt, "hardware-compatible", "off")


def _limit_workspace(trt: ModuleType, config: Any, workspace_mib: int) -> None:
    pool = trt.MemoryPoolType.WORKSPACE
    config.set_memory_pool_limit(pool, workspace_mib * _MIB)
    limit = int(config.get_memory_pool_limit(pool))
    if limit != workspace_mib * _MIB:
        raise _ignored(trt, "workspace", f"{limit // _MIB} MiB")


def _aim(trt: ModuleType, config: Any, targets: tuple[str, ...]) -> None:
    """Set the compute capabilities that a plan of TensorRT for RTX is compiled for."""
    if not hasattr(trt, "ComputeCapability"):
        raise _not_offered(trt, "target")
    # Enumerations of pybind11 list their members; NONE is the absence of one.
    known = [name for name in trt.ComputeCapability.__members__ if name != "NONE"]
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        if name not in known:
            raise ConfigError(
                f"{library_of(trt).title} {trt.__version__} does not compile for the target {name}",
                hint=f"choose from {', '.join(known)}",
            )
        capability = getattr(trt.ComputeCapability, name)
        if not config.set_compute_capability(capability, index) or config.get_compute_capability(index) != capability:
            raise _ignored(trt, "target", "another one")


def _set_flag(trt: ModuleType, config: Any, name: str) -> bool:
    """Whether the flag exists and is in effect."""
    if not hasattr(trt.BuilderFlag, name):
        return False
    flag = getattr(trt.BuilderFlag, name)
    config.set_flag(flag)
    return bool(config.get_flag(flag))


def _not_offered(trt: ModuleType, option: str) -> ConfigError:
    title = f"{library_of(trt).title} {trt.__version__}"
    return ConfigError(f"{title} does not support --{option}", hint=f"leave --{option} out")


def _ignored(trt: ModuleType, option: str, effective: str) -> ConfigError:
    title = f"{library_of(trt).title} {trt.__version__}"
    return ConfigError(f"{title} ignores --{option}: the setting in effect is {effective}", hint=f"leave --{option} out")
