"""Stand-ins of TensorRT's builder, strict about calls and arguments; they record calls, and fail where a test says so.

A plan is JSON of how it was built.
"""

from __future__ import annotations

import enum
import json
from typing import Any

import onnx

__all__ = ["BUILD_CLASSES", "CALLS", "FAULTS"]

#: Call → the outcome of each call: ``fine``, ``none``, or what is logged before None: lines that begin with their severity, or
#: else are errors. Filled by tests.
FAULTS: dict[str, list[str]] = {}
#: The recorded calls, in order.
CALLS: list[tuple[str, Any]] = []


class _Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


def _fails(call: str, logger: Any = None) -> bool:
    """Whether this call returns None this time, after logging the reason."""
    if not FAULTS.get(call):
        return False
    reason = FAULTS[call].pop(0)
    if reason == "fine":
        return False
    if reason != "none" and logger is not None:
        for line in reason.splitlines():
            level, _, text = line.partition(" ")
            known = level in _Severity.__members__
            logger.log(_Severity[level] if known else _Severity.ERROR, text if known else line)
    return True


class ILogger:
    Severity = _Severity

    def __init__(self) -> None:
        self._ready = True


class IProgressMonitor:
    def __init__(self) -> None:
        self._ready = True


class _Tensor:
    name = "images"


class _Network:
    num_inputs = 1

    def __init__(self, flags: int, logger: Any) -> None:
        self.flags, self.logger, self.graph = flags, logger, b""

    def get_input(self, index: int) -> _Tensor:
        assert index == 0
        return _Tensor()


class ParserError:
    def desc(self) -> str:
        return "an operator is not supported"

    def node(self) -> int:
        return 7

    def node_name(self) -> str:
        return "layer1.0.conv1"

    def node_operator(self) -> str:
        return "Conv"


class OnnxParser:
    def __init__(self, network: _Network, logger: Any) -> None:
        assert logger._ready, "the base class of the logger was not initialised"
        self._network = network
        self.num_errors = 0

    def parse(self, graph: bytes) -> bool:
        assert isinstance(graph, bytes)
        if _fails("parse"):
            self.num_errors = 1
            return False
        onnx.load_from_string(graph)
        self._network.graph = graph
        return True

    def get_error(self, index: int) -> Any:
        import tensorrt

        return tensorrt.ParserError()


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, smallest: tuple[int, ...], best: tuple[int, ...], largest: tuple[int, ...]) -> None:
        self.shapes[name] = [smallest, best, largest]


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes | None:
        return None if _fails("serialize") else self._content + b"+"


class IBuilderConfig:
    def __init__(self) -> None:
        self._flags: list[str] = []
        self._pools: dict[str, int] = {}
        self._profiles: list[_Profile] = []

    def set_flag(self, flag: Any) -> None:
        self._flags.append(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flags

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._pools[pool.name] = size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool.name, 1 << 40)

    def add_optimization_profile(self, profile: _Profile) -> int:
        if _fails("add_optimization_profile"):
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        import tensorrt

        assert isinstance(content, bytes)
        return None if _fails("create_timing_cache") else tensorrt.ITimingCache(content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        return True

    # Attributes, if the version has them.
    profiling_verbosity: Any = None
    builder_optimization_level = 3
    hardware_compatibility_level: Any = None
    progress_monitor: Any = None


def _to_run(graph: bytes, shapes: list[tuple[int, ...]]) -> dict[str, Any]:
    """What the stand-in of the runtime needs in a plan."""
    logits = onnx.load_from_string(graph).graph.output[0].type.tensor_type
    return {
        "classes": logits.shape.dim[1].dim_value,
        "size": shapes[2][1],
        "min_batch": shapes[0][0],
        "max_batch": shapes[2][0],
        "dtype": {1: "FLOAT", 10: "HALF"}[logits.elem_type],
    }


class Builder:
    def __init__(self, logger: Any) -> None:
        assert logger._ready, "the base class of the logger was not initialised"
        self._logger = logger

    def create_network(self, flags: int) -> Any:
        return None if _fails("create_network", self._logger) else _Network(flags, self._logger)

    def create_builder_config(self) -> Any:
        import tensorrt

        return None if _fails("create_builder_config", self._logger) else tensorrt.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return None if _fails("create_optimization_profile", self._logger) else _Profile()

    def build_serialized_network(self, network: _Network, config: Any) -> bytes | None:
        import tensorrt

        level = getattr(config, "hardware_compatibility_level", None)
        how = {
            "version": tensorrt.__version__,
            "network_flags": network.flags,
            "flags": config._flags,
            "pools": config._pools,
            "profile": config._profiles[0].shapes,
            "verbosity": config.profiling_verbosity.name,
            "level": config.builder_optimization_level,
            "hardware": None if level is None else level.name,
            "graph": len(network.graph),
            **_to_run(network.graph, config._profiles[0].shapes["images"]),
        }
        CALLS.append(("build", how))
        watcher = getattr(config, "progress_monitor", None)
        if watcher is not None:
            assert watcher._ready, "the base class of the monitor was not initialised"
            if not _watched(watcher):
                self._logger.log(_Severity.ERROR, "IBuilder::buildSerializedNetwork: Error Code 7: BuildCanceled")
                return None
        self._logger.log(_Severity.VERBOSE, "tactics were timed")
        return None if _fails("build_serialized_network", self._logger) else json.dumps(how).encode()


def _watched(watcher: Any) -> bool:
    """The phases of a build as the real builder reports them: nested, steps from 0 on, and the last one never comes."""
    watcher.phase_start("Building engine", None, 3)
    watcher.phase_start("Timing tactics", "Building engine", 4)
    for step in range(4):
        if not watcher.step_complete("Timing tactics", step):
            return False
    watcher.phase_finish("Timing tactics")
    if not all(watcher.step_complete("Building engine", step) for step in range(2)):
        return False
    watcher.phase_finish("Building engine")
    return True


class _Context:
    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "images"
        self.shape = shape
        return True


class _Inspector:
    execution_context: Any = None

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        CALLS.append(("inspect", None if self.execution_context is None else self.execution_context.shape))
        return json.dumps({"Layers": ["conv1"], "Bindings": ["images", "logits"]})


class _Engine:
    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def create_execution_context(self) -> Any:
        return None if _fails("create_execution_context") else _Context()

    def create_engine_inspector(self) -> Any:
        return None if _fails("create_engine_inspector") else _Inspector()


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        return None if _fails("deserialize_cuda_engine", self._logger) else _Engine()


BUILD_CLASSES = {
    "Builder": Builder,
    "IBuilderConfig": IBuilderConfig,
    "ILogger": ILogger,
    "IProgressMonitor": IProgressMonitor,
    "ITimingCache": ITimingCache,
    "OnnxParser": OnnxParser,
    "ParserError": ParserError,
    "Runtime": Runtime,
}
