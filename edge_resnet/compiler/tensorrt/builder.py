"""TensorRT's builder: a graph file and options → the plan's bytes, in this process.

Calls what TensorRT 8.6 to 11 share, and checks first for what some versions lack. Every None that TensorRT returns is an error
with TensorRT's last error lines. Does not know about artifacts, and runs no engine.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorrt

from edge_resnet.artifact.enginecache import EngineOptions
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.timingcache import read_timings, write_timings
from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.core.records import Progress, Typing
from edge_resnet.device.gpu import first_gpu
from edge_resnet.runtime.tensorrt.library import BuildLog, log_to_python, network_flags, progress_monitor

__all__ = ["Plan", "build_plan"]

_MIB = 1 << 20
#: No layer of a ResNet needs more, so halving further would only take time.
_MIN_WORKSPACE_MIB = 64

_trt: ModuleType = tensorrt
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """``content``: the plan's bytes. ``layers``: the engine inspector's JSON, None if it gives none. ``workspace_mib``: the limit
    that the plan was built with, None for TensorRT's default."""

    content: bytes
    layers: str | None
    workspace_mib: int | None


def build_plan(request: PlanRequest, progress: Progress | None = None) -> Plan:
    """Build the engine of an ONNX file in this process.

    If memory runs out, the workspace is halved, down to 64 MiB. Raises BackendError if there is no GPU, ConfigError for an
    option that this TensorRT does not have, and BuildError if TensorRT builds no engine.
    """
    first_gpu()
    log = log_to_python(_trt)
    workspace = request.options.tuning.workspace_mib
    while True:
        log.errors.clear()
        content = _attempt(request, workspace, log, progress)
        if content is not None:
            return Plan(content, _layers(content, request.options, log), workspace)
        smaller = _smaller(workspace)
        if not log.ran_out_of_memory() or smaller is None:
            raise _no_engine(log)
        _log.warning("TensorRT ran out of memory: building again with a workspace of %d MiB", smaller)
        workspace = smaller


def _attempt(request: PlanRequest, workspace_mib: int | None, log: BuildLog, progress: Progress | None) -> bytes | None:
    """One build from the start, None if it fails: after a failure no object of the builder is used again."""
    options = request.options
    builder = _some(_trt.Builder(log.logger), "Builder", log)
    network = _some(builder.create_network(network_flags(_trt, request.typing)), "create_network", log)
    _parse(request.graph, network, log)
    config = _some(builder.create_builder_config(), "create_builder_config", log)
    _configure(config, options, request.typing, workspace_mib)
    _add_profile(builder, network, config, options, log)
    cache = _some(config.create_timing_cache(read_timings(request.timings)), "create_timing_cache", log)
    config.set_timing_cache(cache, False)
    monitor = None if progress is None else progress_monitor(_trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return None
    if request.timings is not None:
        write_timings(request.timings, bytes(_some(cache.serialize(), "the timing cache's serialize", log)))
    return bytes(plan)


def _parse(graph: Path, network: Any, log: BuildLog) -> None:
    parser = _some(_trt.OnnxParser(network, log.logger), "OnnxParser", log)
    if parser.parse(graph.read_bytes()):
        return
    reasons = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    raise BuildError(
        f"TensorRT {_trt.__version__} cannot read the graph: {'; '.join(reasons) or log.last()}",
        hint="build the artifact again with this version of edge-resnet; if that does not help, report it",
    )


def _parser_error(error: Any) -> str:
    # TensorRT 8.6 only has the number of the node.
    node = f"{error.node_operator()} {error.node_name()}" if hasattr(error, "node_name") else f"node {error.node()}"
    return f"{node}: {error.desc()}"


def _configure(config: Any, options: EngineOptions, typing: Typing, workspace_mib: int | None) -> None:
    flags = _trt.BuilderFlag
    wanted = {"fp32": [], "fp16": ["FP16"], "int8": ["FP16", "INT8"]}[options.precision] if typing == "weak" else []
    tuning = options.tuning
    if tuning.version_compatible:
        wanted = [*wanted, "VERSION_COMPATIBLE"]
    for name in wanted:
        if not hasattr(flags, name):
            raise _not_offered(name.lower().replace("_", "-"))
        config.set_flag(getattr(flags, name))
    config.profiling_verbosity = _trt.ProfilingVerbosity.DETAILED
    if workspace_mib is not None:
        config.set_memory_pool_limit(_trt.MemoryPoolType.WORKSPACE, workspace_mib * _MIB)
    if tuning.level is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise _not_offered("level")
        config.builder_optimization_level = tuning.level
    if tuning.hardware_compatible:
        if not hasattr(_trt, "HardwareCompatibilityLevel"):
            raise _not_offered("hardware-compatible")
        config.hardware_compatibility_level = _trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _add_profile(builder: Any, network: Any, config: Any, options: EngineOptions, log: BuildLog) -> None:
    if network.num_inputs != 1:
        raise BuildError(f"the graph has {network.num_inputs} inputs, not one", hint="build the artifact again")
    profile = _some(builder.create_optimization_profile(), "create_optimization_profile", log)
    batch, size = options.batch, options.input_size
    shapes = ((count, size, size, 3) for count in (batch.min, batch.opt, batch.max))
    profile.set_shape(network.get_input(0).name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT takes no batch of {batch.min} to {batch.max}: {log.last()}", hint="choose a different batch")


def _layers(content: bytes, options: EngineOptions, log: BuildLog) -> str | None:
    """The engine inspector's JSON; None if there is no inspector, which does not fail the build."""
    runtime = _trt.Runtime(log.logger)
    if runtime is not None:
        runtime.engine_host_code_allowed = True  # a version-compatible plan contains code, which this process has just built
    engine: Any = None if runtime is None else runtime.deserialize_cuda_engine(content)
    inspector: Any = None if engine is None else engine.create_engine_inspector()
    if inspector is None:
        _log.warning("the engine cannot be inspected: %s", log.last())
        return None
    context = engine.create_execution_context()
    if context is not None:
        # With a dynamic batch, the inspector lists no tensor formats until a shape is set.
        context.set_input_shape(engine.get_tensor_name(0), (options.batch.opt, options.input_size, options.input_size, 3))
        inspector.execution_context = context
    return str(inspector.get_engine_information(_trt.LayerInformationFormat.JSON))


def _smaller(workspace_mib: int | None) -> int | None:
    """Half of the limit, or 1 GiB if there was none; None once the minimum is reached."""
    smaller = 1024 if workspace_mib is None else workspace_mib // 2
    return smaller if smaller >= _MIN_WORKSPACE_MIB else None


def _some(made: Any, call: str, log: BuildLog) -> Any:
    if made is None:
        raise BuildError(f"TensorRT's {call} returned None: {log.last()}", hint="edge-resnet doctor checks the GPU")
    return made


def _no_engine(log: BuildLog) -> BuildError:
    if log.ran_out_of_memory():
        hint = "close other programs, or build for a smaller batch"
        return BuildError(f"TensorRT ran out of memory: {log.last()}", hint=hint)
    return BuildError(f"TensorRT built no engine: {log.last()}", hint="edge-resnet doctor; --debug shows TensorRT's log")


def _not_offered(option: str) -> ConfigError:
    return ConfigError(f"TensorRT {_trt.__version__} does not support --{option}", hint=f"leave --{option} out")
