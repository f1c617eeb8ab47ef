"""The builder of TensorRT and of TensorRT for RTX: a graph file and options → the plan's bytes, in this process.

Calls what TensorRT 8.6 to 11 share, and checks first for what some versions lack. Every None that TensorRT returns is an error
with TensorRT's last error lines. Loads the library that a request names; does not know about artifacts, and runs no engine.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_resnet.artifact.enginecache import EngineOptions
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.configuration import configure
from edge_resnet.compiler.tensorrt.loglisting import listing_of_log
from edge_resnet.compiler.tensorrt.progress import BuildMonitor
from edge_resnet.compiler.tensorrt.timingcache import read_timings, write_timings
from edge_resnet.core.errors import BuildError, ConfigError, EdgeResnetError
from edge_resnet.core.records import Progress
from edge_resnet.runtime.tensorrt.gate import make_builder, make_runtime
from edge_resnet.runtime.tensorrt.library import library_of, load_library, network_flags, version_of
from edge_resnet.runtime.tensorrt.log import BuildLog, log_to_python

__all__ = ["Plan", "build_plan"]

#: No layer of a ResNet needs more, so halving further would only take time.
_MIN_WORKSPACE_MIB = 64
#: How TensorRT for RTX refuses the fully connected layer of an FP32 network for a GPU without TF32.
_NO_FP32 = "(SM75): FP32 GEMM is not supported"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """``content``: the plan's bytes. ``layers``: the JSON of the engine inspector, or of the same listing in the log, None if
    there is neither. ``workspace_mib``: the limit that the plan was built with, None for TensorRT's default."""

    content: bytes
    layers: str | None
    workspace_mib: int | None


def build_plan(request: PlanRequest, progress: Progress | None = None) -> Plan:
    """Build the plan of an ONNX file in this process, with the library that the request names.

    If memory runs out, the workspace is halved, down to 64 MiB. Raises MissingDependencyError if the library is not installed,
    BackendError if it needs a GPU and there is none, ConfigError for an option that it does not have, BuildError if it builds no
    plan, and what ``progress`` raises, which cancels the build.
    """
    trt = load_library(request.library)
    version_of(trt)
    log = log_to_python(trt)
    workspace = request.options.tuning.workspace_mib
    while True:
        log.begin()
        try:
            content = _Attempt(trt, request, workspace, log).build(progress)
        finally:
            log.end()
        if content is not None:
            return Plan(content, _layers(trt, content, request.options, log), workspace)
        smaller = _smaller(workspace)
        if log.out_of_memory() is None or smaller is None:
            raise _no_engine(trt, log)
        _log.warning("TensorRT ran out of memory: building again with a workspace of %d MiB", smaller)
        workspace = smaller


@dataclass(frozen=True)
class _Attempt:
    """One build from the start: after a failure no object of the builder is used again."""

    trt: ModuleType
    request: PlanRequest
    workspace_mib: int | None
    log: BuildLog

    def build(self, progress: Progress | None) -> bytes | None:
        """The plan, None if TensorRT builds none. Raises what ``progress`` raises."""
        trt, request, log = self.trt, self.request, self.log
        builder = make_builder(trt, log)
        network = _some(builder.create_network(network_flags(trt, request.typing)), "create_network", log)
        _parse(trt, request.graph, network, log)
        config = _some(builder.create_builder_config(), "create_builder_config", log)
        configure(trt, config, request, self.workspace_mib)
        _add_profile(builder, network, config, request.options, log)
        cache = None if library_of(trt).ahead else self._timing_cache(config)
        monitor = None if progress is None else BuildMonitor(trt, progress)
        if monitor is not None and monitor.monitor is not None:
            config.progress_monitor = monitor.monitor
        plan = builder.build_serialized_network(network, config)
        if monitor is not None and monitor.failure is not None:
            raise monitor.failure
        if plan is None:
            return None
        if cache is not None and request.timings is not None:
            write_timings(request.timings, bytes(_some(cache.serialize(), "the timing cache's serialize", log)))
        return bytes(plan)

    def _timing_cache(self, config: Any) -> Any:
        cache = _some(config.create_timing_cache(read_timings(self.request.timings)), "create_timing_cache", self.log)
        config.set_timing_cache(cache, False)
        return cache


def _parse(trt: ModuleType, graph: Path, network: Any, log: BuildLog) -> None:
    title = f"{library_of(trt).title} {trt.__version__}"
    hint = "build the artifact again with this version of edge-resnet; if that does not help, report it"
    content = graph.read_bytes()
    if not content:  # for the parser a network without layers
        raise BuildError(f"{title} cannot read the graph: the file is empty", hint=hint)
    parser = _some(trt.OnnxParser(network, log.logger), "OnnxParser", log)
    if parser.parse(content):
        return
    reasons = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    raise BuildError(f"{title} cannot read the graph: {'; '.join(reasons) or log.last()}", hint=hint)


def _parser_error(error: Any) -> str:
    """A sentence; an error of the whole file belongs to no node."""
    text = str(error.desc()).strip()
    if text.startswith("Assertion failed: "):  # then the condition in C++, and after a colon what it means
        text = text.partition(": ")[2].rpartition(": ")[2]
    node = f"{error.node_operator()} {error.node_name()}".strip() if hasattr(error, "node_name") else ""
    if not node and error.node() < 0:
        return text
    # TensorRT 8.6 only has the number of the node.
    return f"{node or f'node {error.node()}'}: {text}"


def _add_profile(builder: Any, network: Any, config: Any, options: EngineOptions, log: BuildLog) -> None:
    if network.num_inputs != 1:
        found = "no input" if not network.num_inputs else f"{network.num_inputs} inputs, not one"
        raise BuildError(f"the graph has {found}", hint="build the artifact again")
    profile = _some(builder.create_optimization_profile(), "create_optimization_profile", log)
    batch, size = options.batch, options.input_size
    shapes = ((count, size, size, 3) for count in (batch.min, batch.opt, batch.max))
    profile.set_shape(network.get_input(0).name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT takes no batch of {batch.min} to {batch.max}: {log.last()}", hint="choose a different batch")


def _layers(trt: ModuleType, content: bytes, options: EngineOptions, log: BuildLog) -> str | None:
    """The engine inspector's JSON, or the listing of the log where an engine cannot be opened; None if there is neither, which
    does not fail the build."""
    if library_of(trt).ahead:
        listing = listing_of_log(log.layers)
        if listing is None:
            _log.warning("%s %s listed no layers that can be read", library_of(trt).title, trt.__version__)
        return listing
    runtime = make_runtime(trt, log, built=True)
    runtime.engine_host_code_allowed = True  # a version-compatible plan contains code, which this process has just built
    engine: Any = runtime.deserialize_cuda_engine(content)
    inspector: Any = None if engine is None else engine.create_engine_inspector()
    if inspector is None:
        _log.warning("the engine cannot be inspected: %s", log.last())
        return None
    context = engine.create_execution_context()
    if context is not None:
        # With a dynamic batch, the inspector lists no tensor formats until a shape is set.
        context.set_input_shape(engine.get_tensor_name(0), (options.batch.opt, options.input_size, options.input_size, 3))
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _smaller(workspace_mib: int | None) -> int | None:
    """Half of the limit, or 1 GiB if there was none; None once the minimum is reached."""
    smaller = 1024 if workspace_mib is None else workspace_mib // 2
    return smaller if smaller >= _MIN_WORKSPACE_MIB else None


def _some(made: Any, call: str, log: BuildLog) -> Any:
    if made is None:
        raise BuildError(f"TensorRT's {call} returned None: {log.last()}", hint="edge-resnet doctor checks the GPU")
    return made


def _no_engine(trt: ModuleType, log: BuildLog) -> EdgeResnetError:
    title = library_of(trt).title
    if _NO_FP32 in log.last():
        return ConfigError(f"{title} compiles no FP32 network for Turing", hint="edge-resnet build --fp16 makes one")
    memory = log.out_of_memory()
    if memory is not None:
        return BuildError(f"{title} ran out of memory: {memory}", hint="close other programs, or build for a smaller batch")
    return BuildError(f"{title} built no engine: {log.last()}", hint=_remedy(log.last(), library_of(trt).ahead))


def _remedy(reason: str, ahead: bool) -> str:
    if "libnvinfer_lean" in reason:
        lean = "TensorRT's lean runtime, libnvinfer_lean, is not installed"
        return f"leave --version-compatible out: {lean}" if ahead else f"install it, or leave --version-compatible out: {lean}"
    if "within workspace limit" in reason:
        return "choose a larger --workspace"
    return "--debug shows TensorRT's log" if ahead else "edge-resnet doctor; --debug shows TensorRT's log"
