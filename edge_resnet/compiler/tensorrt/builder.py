"""TensorRT's builder: a graph file and options → the plan's bytes, in this process. Knows no artifact and runs no engine.

Only what TensorRT 8.6 to 11 share is called; what some of them lack is looked for first. Every None is an error with
TensorRT's last error lines.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorrt

from edge_resnet.artifact.enginecache import EngineOptions, Typing
from edge_resnet.compiler.tensorrt.timingcache import read_timings, write_timings
from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.device.gpu import first_gpu
from edge_resnet.runtime.tensorrt.library import BuildLog, log_to_python, network_flags, progress_monitor

__all__ = ["Plan", "build_plan"]

_MIB = 1 << 20
#: No ResNet layer needs more, so that halving further would only take time.
_MIN_WORKSPACE_MIB = 64

_trt: ModuleType = tensorrt
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """``content``: the serialized engine. ``layers``: the inspector's JSON, None where it could not be had. ``workspace_mib``:
    the limit that it was built within, None for TensorRT's own."""

    content: bytes
    layers: str | None
    workspace_mib: int | None


def build_plan(
    graph: Path, options: EngineOptions, dialect: Typing, timings: Path | None = None, progress: Progress | None = None
) -> Plan:
    """Build the engine of an ONNX file whose one input is (N, H, W, 3) uint8.

    ``timings``: the timing cache's file, read first and written after. Where memory runs out the workspace is halved, down to
    64 MiB. Raises BackendError where there is no GPU, ConfigError for what this TensorRT cannot do, BuildError where it builds
    nothing.
    """
    first_gpu()
    listener = log_to_python(_trt)
    workspace = options.tuning.workspace_mib
    while True:
        listener.errors.clear()
        content = _attempt(graph, options, dialect, workspace, listener, (timings, progress))
        if content is not None:
            return Plan(content, _layers(content, options, listener), workspace)
        smaller = _smaller(workspace)
        if not listener.ran_out_of_memory() or smaller is None:
            raise _no_engine(listener)
        _log.warning("TensorRT ran out of memory: building again within a workspace of %d MiB", smaller)
        workspace = smaller


def _attempt(
    graph: Path,
    options: EngineOptions,
    dialect: Typing,
    workspace_mib: int | None,
    listener: BuildLog,
    extras: tuple[Path | None, Progress | None],
) -> bytes | None:
    """One build from the start: after a failure nothing of the builder is used again."""
    timings, progress = extras
    builder = _some(_trt.Builder(listener.logger), "Builder", listener)
    network = _some(builder.create_network(network_flags(_trt, dialect)), "create_network", listener)
    _parse(graph, network, listener)
    config = _some(builder.create_builder_config(), "create_builder_config", listener)
    _configure(config, options, dialect, workspace_mib)
    _add_profile(builder, network, config, options, listener)
    cache = _some(config.create_timing_cache(read_timings(timings)), "create_timing_cache", listener)
    config.set_timing_cache(cache, False)
    watcher = None if progress is None else progress_monitor(_trt, progress)
    if watcher is not None:
        config.progress_monitor = watcher
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return None
    if timings is not None:
        write_timings(timings, bytes(_some(cache.serialize(), "the timing cache's serialize", listener)))
    return bytes(plan)


def _parse(graph: Path, network: Any, listener: BuildLog) -> None:
    parser = _some(_trt.OnnxParser(network, listener.logger), "OnnxParser", listener)
    if parser.parse(graph.read_bytes()):
        return
    said = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    raise BuildError(
        f"TensorRT {_trt.__version__} cannot read the graph: {'; '.join(said) or listener.last()}",
        hint="build the artifact again with this version of edge-resnet, and report it if that does not help",
    )


def _parser_error(error: Any) -> str:
    # 8.6 knows the node's number alone.
    node = f"{error.node_operator()} {error.node_name()}" if hasattr(error, "node_name") else f"node {error.node()}"
    return f"{node}: {error.desc()}"


def _configure(config: Any, options: EngineOptions, dialect: Typing, workspace_mib: int | None) -> None:
    flags = _trt.BuilderFlag
    wanted = {"fp32": [], "fp16": ["FP16"], "int8": ["FP16", "INT8"]}[options.precision] if dialect == "weak" else []
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


def _add_profile(builder: Any, network: Any, config: Any, options: EngineOptions, listener: BuildLog) -> None:
    if network.num_inputs != 1:
        raise BuildError(f"the graph has {network.num_inputs} inputs, not one", hint="build the artifact again")
    profile = _some(builder.create_optimization_profile(), "create_optimization_profile", listener)
    batch, size = options.batch, options.input_size
    shapes = ((count, size, size, 3) for count in (batch.min, batch.opt, batch.max))
    profile.set_shape(network.get_input(0).name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT takes no batch of {batch.min} to {batch.max}: {listener.last()}", hint="give other batches")


def _layers(content: bytes, options: EngineOptions, listener: BuildLog) -> str | None:
    """What the inspector says of the engine; its lack costs a listing and no engine."""
    runtime = _trt.Runtime(listener.logger)
    if runtime is not None:
        runtime.engine_host_code_allowed = True  # a version-compatible plan brings code of its own, built a moment ago by us
    engine: Any = None if runtime is None else runtime.deserialize_cuda_engine(content)
    inspector: Any = None if engine is None else engine.create_engine_inspector()
    if inspector is None:
        _log.warning("the engine cannot be inspected: %s", listener.last())
        return None
    context = engine.create_execution_context()
    if context is not None:
        # Where the batch is open, the inspector names no tensor's format until a shape is set.
        context.set_input_shape(engine.get_tensor_name(0), (options.batch.opt, options.input_size, options.input_size, 3))
        inspector.execution_context = context
    return str(inspector.get_engine_information(_trt.LayerInformationFormat.JSON))


def _smaller(workspace_mib: int | None) -> int | None:
    """Half of the limit; 1 GiB where there was none; None at the end."""
    smaller = 1024 if workspace_mib is None else workspace_mib // 2
    return smaller if smaller >= _MIN_WORKSPACE_MIB else None


def _some(made: Any, call: str, listener: BuildLog) -> Any:
    if made is None:
        raise BuildError(f"TensorRT's {call} gave nothing: {listener.last()}", hint="edge-resnet doctor looks at the GPU")
    return made


def _no_engine(listener: BuildLog) -> BuildError:
    if listener.ran_out_of_memory():
        hint = "close other programs, or lower the largest --batch"
        return BuildError(f"TensorRT ran out of memory: {listener.last()}", hint=hint)
    return BuildError(f"TensorRT built no engine: {listener.last()}", hint="edge-resnet doctor; --debug shows TensorRT's log")


def _not_offered(option: str) -> ConfigError:
    return ConfigError(f"TensorRT {_trt.__version__} has no --{option}", hint=f"leave --{option} out")
