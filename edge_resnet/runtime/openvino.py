"""OpenVINO on the CPU: FP32, and INT8 from the Q/DQ graph that ONNX Runtime runs. Does not know how those graphs are derived.

Loads openvino when the backend is loaded. One compiled network serves any batch size: one of its own for batch 1 was 1 to 3 %
faster, but would be a second network in memory. OpenVINO's cache of compiled networks is not used: it saves 0.4 s of ResNet-50's
start of 0.8 s, but a cached network whose bytes had been changed was loaded without an error and gave other predictions. Two
requests at once did not speed up ``run`` on two cores.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
import threading
from pathlib import Path
from types import ModuleType, TracebackType

import numpy as np

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.device.machine import has_int8_dot_product
from edge_resnet.runtime.backend import (
    BackendClass,
    BackendInfo,
    EngineRequest,
    Images,
    Logits,
    Requirement,
    Variant,
    check_images,
    cpu_graph,
    cpu_int8_request,
    refuse_tuning,
)
from edge_resnet.runtime.onnxruntime import QDQ_FOR_CPU

__all__ = ["BACKEND", "OpenVinoBackend", "load_openvino"]

#: The package through which OpenVINO reports over the network that it was imported.
_TELEMETRY = "openvino_telemetry"

_log = logging.getLogger(__name__)


def load_openvino() -> ModuleType:
    """Import OpenVINO and keep it from reporting the import over the network: without that package it uses a stub of its own."""
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        sys.modules.pop(_TELEMETRY, None)


class OpenVinoBackend:
    """The network in OpenVINO's CPU plugin, on all cores that this process may use; runs one call at a time."""

    name = "openvino"

    def __init__(self, graph: Path, classes: int, input_size: int, *, half: bool = False) -> None:
        core = load_openvino().Core()
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
            # Threads bound to cores compete there with those of a second network and of preprocessing.
            "ENABLE_CPU_PINNING": False,
            # By default it computes floats in bfloat16 if the processor can, which is neither FP32 nor FP16.
            "INFERENCE_PRECISION_HINT": "f16" if half else "f32",
        }
        try:
            self._network = core.compile_model(core.read_model(graph), "CPU", properties)
            self._request = self._network.create_infer_request()
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO cannot load {graph}: {_reason(error)}", hint="the backend onnxruntime runs the same artifact"
            ) from error
        self._input_size = input_size
        self._turn = threading.Lock()
        self._closed = False
        self.classes = classes

    @classmethod
    def engine_request(cls, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:
        """INT8 is the graph derived for this kind of CPU; float graphs are run as they are.

        Raises ConfigError for the simulation.
        """
        refuse_tuning(tuning)
        if artifact.manifest.precision != "int8" or variant == "reference":
            return None
        if variant == "simulated":
            raise ConfigError(
                "OpenVINO does not simulate TensorRT's INT8", hint="the backend onnxruntime does, and auto chooses it"
            )
        return cpu_int8_request(artifact, QDQ_FOR_CPU)

    @classmethod
    def open(cls, artifact: Artifact, variant: Variant) -> OpenVinoBackend:
        """Open the graph of that variant. Raises IncompatibleEngineError if it has not been derived yet."""
        graph = cpu_graph(artifact, cls.engine_request(artifact, variant))
        half = artifact.manifest.precision == "fp16" and variant == "native"
        if half and not _computes_in_half():
            _log.warning("OpenVINO computes %s in FP32 on this processor: measurements are those of FP32", artifact.folder)
            half = False
        spec = artifact.manifest.model
        return cls(graph, spec.classes, spec.input_size, half=half)

    def infer(self, images: Images) -> Logits:
        """(N, H, W, 3) uint8 RGB → logits (N, classes) float32, which belong to the caller."""
        with self._turn:
            check_images(images, self._input_size, closed=self._closed)
            try:
                logits: Logits = self._request.infer([np.ascontiguousarray(images)])[0]  # copied in, and copied out
            except RuntimeError as error:
                raise BackendError(
                    f"OpenVINO failed: {_reason(error)}", hint="the backend onnxruntime runs the same artifact"
                ) from error
        return logits

    def close(self) -> None:
        """Free the network, once a running call has ended."""
        with self._turn:
            if not self._closed:
                del self._request, self._network
                self._closed = True

    def __enter__(self) -> OpenVinoBackend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def _load() -> BackendClass:
    load_openvino()
    return OpenVinoBackend


def _suits() -> bool:
    """On x86 with VNNI it took 0.77 and 0.86 of ONNX Runtime's time for ResNet-18 and 50 in INT8, and the same time in FP32 (two
    cores of an AMD EPYC, benchmarks/backends.py). The two were not compared on other processors."""
    return platform.machine() == "x86_64" and has_int8_dot_product()


def _computes_in_half() -> bool:
    capabilities: list[str] = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "FP16" in capabilities


def _reason(error: RuntimeError) -> str:
    """The last line that is not empty: those before it name OpenVINO's source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


BACKEND = BackendInfo(
    load=_load,
    requirements=(Requirement("openvino", "openvino", extra="openvino"),),
    form=QDQ_FOR_CPU,
    auto_rank=3,
    suits=_suits,
)
