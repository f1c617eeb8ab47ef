"""OpenVINO on the CPU: FP32, and INT8 from the Q/DQ graph that ONNX Runtime runs. Knows nothing of how those graphs are made.

Any batch size goes through one compiled network: one of its own for batch 1 was 1 to 3 % faster, and would be a second in memory.
OpenVINO's cache of compiled networks is not used. It takes 0.4 s off ResNet-50's start of 0.8 s, but a cached network whose bytes
had been changed was loaded without a word and gave other answers. Two requests at once did not speed up ``run`` on two cores.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.runtime.backend import (
    EngineRequest,
    Images,
    Logits,
    Variant,
    check_images,
    cpu_graph,
    cpu_int8_request,
    refuse_tuning,
)

__all__ = ["OpenVinoBackend"]

#: What OpenVINO's own package reports its imports with.
_TELEMETRY = "openvino_telemetry"

_log = logging.getLogger(__name__)


@contextmanager
def _unreported() -> Iterator[None]:
    """Keep OpenVINO from reporting over the network that it was imported: without that package it uses a stub of its own."""
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]


with _unreported():
    import openvino


class OpenVinoBackend:
    """The network in OpenVINO's CPU plugin, on all cores that this process may use; calls from several threads wait in turn."""

    name = "openvino"

    def __init__(self, graph: Path, classes: int, input_size: int, *, half: bool = False) -> None:
        core = openvino.Core()
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
            # Threads bound to cores meet there with those of a second network and of preprocessing.
            "ENABLE_CPU_PINNING": False,
            # Left alone it computes floats in bfloat16 where the processor can, which is neither FP32 nor FP16.
            "INFERENCE_PRECISION_HINT": "f16" if half else "f32",
        }
        try:
            self._network = core.compile_model(core.read_model(graph), "CPU", properties)
            self._request = self._network.create_infer_request()
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO cannot load {graph}: {_reason(error)}", hint="--backend onnxruntime runs the same artifact"
            ) from error
        self._input_size = input_size
        self._turn = threading.Lock()
        self._closed = False
        self.classes = classes

    @classmethod
    def engine_request(cls, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:
        """INT8 is the graph derived for this kind of CPU; float graphs run as they are. Raises ConfigError for the simulation."""
        refuse_tuning(tuning)
        if artifact.manifest.precision != "int8" or variant == "reference":
            return None
        if variant == "simulated":
            raise ConfigError(
                "OpenVINO does not simulate TensorRT's INT8", hint="--backend onnxruntime does, and auto chooses it"
            )
        return cpu_int8_request(artifact)

    @classmethod
    def open(cls, artifact: Artifact, variant: Variant) -> OpenVinoBackend:
        """Open the graph that the variant asks for. Raises IncompatibleEngineError where it was not derived yet."""
        graph = cpu_graph(artifact, cls.engine_request(artifact, variant))
        half = artifact.manifest.precision == "fp16" and variant == "native"
        if half and not _computes_in_half():
            _log.warning("OpenVINO computes %s in FP32 on this processor: what is measured is FP32's", artifact.folder)
            half = False
        spec = artifact.manifest.model
        return cls(graph, spec.classes, spec.input_size, half=half)

    def infer(self, images: Images) -> Logits:
        """(N, H, W, 3) uint8 RGB → logits (N, classes) float32, the caller's to keep."""
        with self._turn:
            check_images(images, self._input_size, closed=self._closed)
            try:
                logits: Logits = self._request.infer([np.ascontiguousarray(images)])[0]  # copied in, and copied out
            except RuntimeError as error:
                raise BackendError(
                    f"OpenVINO failed: {_reason(error)}", hint="--backend onnxruntime runs the same artifact"
                ) from error
        return logits

    def close(self) -> None:
        """Free the network, after the call that is under way."""
        with self._turn:
            if not self._closed:
                del self._request, self._network
                self._closed = True

    def __enter__(self) -> OpenVinoBackend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def _computes_in_half() -> bool:
    capabilities: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "FP16" in capabilities


def _reason(error: RuntimeError) -> str:
    """The last line that says anything: those before it name OpenVINO's source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
