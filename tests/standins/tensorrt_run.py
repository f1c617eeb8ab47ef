"""Stand-ins of TensorRT's runtime: an engine computes a known function of the bytes at its input's address, on its stream.

Those of TensorRT for RTX are among them: where a surface lacks a name, the stand-in has lost it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from standins import pycuda_driver as cuda
from standins.tensorrt_build import BUILD_CLASSES

__all__ = ["COMPILED", "FAULTS", "IMAGE_MS", "JIT_CLASSES", "JUDGEMENT", "PLANS", "RUN_CLASSES", "answers", "plan"]

#: The GPU's time for an image, in milliseconds.
IMAGE_MS = 2.0
#: Call → how often it still returns None or False; filled by tests.
FAULTS: dict[str, int] = {}
#: Digest of a plan that a real builder made → what ``plan`` says of the stand-in's own.
PLANS: dict[str, dict[str, Any]] = {}
#: What ``get_engine_validity`` says of the next plan: a validity and the names of reasons; filled by tests.
JUDGEMENT: list[tuple[str, tuple[str, ...]]] = []
#: The batch sizes whose kernels were compiled, in that order.
COMPILED: list[int] = []
#: What a runtime cache is valid for, such as the driver.
ENVIRONMENT = {"driver": "580"}


def plan(classes: int = 5, size: int = 8, min_batch: int = 1, max_batch: int = 4, dtype: str = "FLOAT") -> bytes:
    """The plan of an engine for (N, size, size, 3) uint8."""
    return json.dumps({"classes": classes, "size": size, "min_batch": min_batch, "max_batch": max_batch, "dtype": dtype}).encode()


def answers(images: npt.NDArray[np.uint8], classes: int = 5) -> npt.NDArray[np.float32]:
    """What the engine computes: weighted sums of the pixels, with other weights for each class; exact in float32."""
    flat = images.reshape(len(images), -1).astype(np.int64)
    weights = np.arange(flat.shape[1])[:, None] % (np.arange(classes) + 2)
    return (flat @ weights % 2039).astype(np.float32)


def _fails(call: str) -> bool:
    if not FAULTS.get(call):
        return False
    FAULTS[call] -= 1
    return True


def _facts_of(content: bytes) -> dict[str, Any] | None:
    """None for what is no plan."""
    digest = hashlib.sha256(content).hexdigest()
    if digest in PLANS:
        return PLANS[digest]
    try:
        return dict(json.loads(content))
    except ValueError:
        return None


class IRuntimeCache:
    """Kernels by batch size, for one environment."""

    def __init__(self) -> None:
        self._kernels: list[int] = []

    def serialize(self) -> bytes | None:
        return None if _fails("serialize") else json.dumps({**ENVIRONMENT, "kernels": self._kernels}).encode()

    def deserialize(self, content: bytes) -> bool:
        try:
            found = json.loads(content)
        except ValueError:
            return False
        kernels = found.pop("kernels")
        if found != ENVIRONMENT:
            return False
        self._kernels = kernels
        return True


class IRuntimeConfig:
    # Attributes, with the real defaults.
    dynamic_shapes_kernel_specialization_strategy: Any = None
    cuda_graph_strategy: Any = None

    def __init__(self) -> None:
        self._cache: Any = None

    def create_runtime_cache(self) -> Any:
        return None if _fails("create_runtime_cache") else self._module.IRuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self._cache = cache
        return not _fails("set_runtime_cache")


class IExecutionContext:
    def __init__(self, facts: dict[str, Any], config: Any = None) -> None:
        self._facts, self._addresses, self._count = facts, {}, 0
        self._config = config

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert isinstance(address, int)
        assert name in ("images", "logits")
        self._addresses[name] = address
        return not _fails("set_tensor_address")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        size = self._facts["size"]
        assert name == "images"
        assert tuple(shape[1:]) == (size, size, 3)
        if _fails("set_input_shape") or not self._facts["min_batch"] <= shape[0] <= self._facts["max_batch"]:
            return False
        self._count = shape[0]
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        recorded = cuda.STREAMS[stream_handle].before is not None
        if _fails("execute_async_v3") or (recorded and _fails("execute_async_v3 recorded")):
            return False
        assert self._count, "no shape was set"
        self._compile(recorded=recorded)
        count, facts, addresses = self._count, self._facts, dict(self._addresses)

        def run() -> None:
            shape = (count, facts["size"], facts["size"], 3)
            images = cuda.read(addresses["images"], int(np.prod(shape))).reshape(shape)
            dtype = {"FLOAT": np.float32, "HALF": np.float16}[facts["dtype"]]
            logits = answers(images, facts["classes"]).astype(dtype)
            cuda.write(addresses["logits"], logits.view(np.uint8).reshape(-1))
            cuda.spend(IMAGE_MS * count)

        cuda.STREAMS[stream_handle].work.append(run)
        return True

    def _compile(self, *, recorded: bool) -> None:
        """The kernel of a batch size, before its first run, unless the cache holds it."""
        if self._config is None:
            return
        assert not recorded, "a context that captures graphs itself cannot be captured"
        assert self._config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
        cache = self._config._cache
        if cache is None or self._count not in cache._kernels:
            COMPILED.append(self._count)
            if cache is not None:
                cache._kernels = [*cache._kernels, self._count]


class ICudaEngine:
    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def create_runtime_config(self) -> Any:
        return None if _fails("create_runtime_config") else self._module.IRuntimeConfig()

    num_io_tensors = 2

    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._module.TensorIOMode
        return modes.INPUT if name == "images" else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        size = self._facts["size"]
        return (-1, size, size, 3) if name == "images" else (-1, self._facts["classes"])

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._module.DataType, "UINT8" if name == "images" else self._facts["dtype"])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("images", 0)
        size = self._facts["size"]
        return [(self._facts[key], size, size, 3) for key in ("min_batch", "min_batch", "max_batch")]

    def create_execution_context(self, *, runtime_config: Any = None) -> Any:
        if _fails("create_execution_context"):
            return None
        return self._module.IExecutionContext(self._facts, runtime_config)


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: Any) -> None:
        assert logger._ready
        self._logger = logger

    def get_engine_validity(self, content: bytes) -> tuple[Any, int]:
        default = ("VALID", ()) if _facts_of(content) else ("INVALID", ("MALFORMED_ENGINE",))
        validity, reasons = JUDGEMENT.pop() if JUDGEMENT else default
        flags = self._module.EngineInvalidityDiagnostics
        return getattr(self._module.EngineValidity, validity), sum(int(getattr(flags, reason)) for reason in reasons)

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        facts = _facts_of(content)
        if _fails("deserialize_cuda_engine") or facts is None:
            severity = self._module.ILogger.Severity
            self._logger.log(severity.ERROR, "Serialization assertion failed: version tag does not match")
            return None
        return self._module.ICudaEngine(facts)


RUN_CLASSES = {
    "ICudaEngine": ICudaEngine,
    "IExecutionContext": IExecutionContext,
    "ILogger": BUILD_CLASSES["ILogger"],
    "Runtime": Runtime,
}
#: Those of TensorRT for RTX.
JIT_CLASSES = {**RUN_CLASSES, "IRuntimeCache": IRuntimeCache, "IRuntimeConfig": IRuntimeConfig}
