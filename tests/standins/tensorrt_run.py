"""Stand-ins of TensorRT's runtime: an engine computes a known function of the bytes at its input's address, on its stream."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from standins import pycuda_driver as cuda
from standins.tensorrt_build import BUILD_CLASSES

__all__ = ["FAULTS", "IMAGE_MS", "RUN_CLASSES", "answers", "plan"]

#: The GPU's time for an image, in milliseconds.
IMAGE_MS = 2.0
#: Call → how often it still returns None or False; filled by tests.
FAULTS: dict[str, int] = {}


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


class IExecutionContext:
    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts, self._addresses, self._count = facts, {}, 0

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


class ICudaEngine:
    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    num_io_tensors = 2

    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def get_tensor_mode(self, name: str) -> Any:
        import tensorrt

        return tensorrt.TensorIOMode.INPUT if name == "images" else tensorrt.TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        size = self._facts["size"]
        return (-1, size, size, 3) if name == "images" else (-1, self._facts["classes"])

    def get_tensor_dtype(self, name: str) -> Any:
        import tensorrt

        return getattr(tensorrt.DataType, "UINT8" if name == "images" else self._facts["dtype"])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("images", 0)
        size = self._facts["size"]
        return [(self._facts[key], size, size, 3) for key in ("min_batch", "min_batch", "max_batch")]

    def create_execution_context(self) -> Any:
        import tensorrt

        return None if _fails("create_execution_context") else tensorrt.IExecutionContext(self._facts)


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: Any) -> None:
        assert logger._ready
        self._logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        import tensorrt

        if _fails("deserialize_cuda_engine"):
            self._logger.log(tensorrt.ILogger.Severity.ERROR, "Serialization assertion failed: version tag does not match")
            return None
        return tensorrt.ICudaEngine(json.loads(content))


RUN_CLASSES = {
    "ICudaEngine": ICudaEngine,
    "IExecutionContext": IExecutionContext,
    "ILogger": BUILD_CLASSES["ILogger"],
    "Runtime": Runtime,
}
