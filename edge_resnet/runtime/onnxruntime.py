"""ONNX Runtime on the CPU: FP32, fast INT8 and the simulation of TensorRT's INT8. Knows nothing of how those graphs are made."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import TracebackType

import numpy as np
import onnxruntime

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import BackendError
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

__all__ = ["OnnxRuntimeBackend"]

_log = logging.getLogger(__name__)


class OnnxRuntimeBackend:
    """The network in ONNX Runtime's CPU provider, on all cores that this process may use."""

    name = "onnxruntime"

    def __init__(self, graph: Path, classes: int, input_size: int, *, as_written: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        # Threads that spin after a run take the cores from preprocessing and from a second session: two networks in turn, as in
        # eval, took 2.4 times as long with it. Within a run they may spin, so that the latency stays.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if as_written:
            # Its passes over Q/DQ would round float biases to int32, which TensorRT does not do: 8 of 2,000 answers changed.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime cannot load {graph}: {_first_line(error)}") from error
        self._input = self._session.get_inputs()[0].name
        self._input_size = input_size
        self._closed = False
        self.classes = classes

    @classmethod
    def engine_request(cls, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:
        """INT8 is derived for this kind of CPU, or as TensorRT's form to simulate it; float graphs run as they are."""
        refuse_tuning(tuning)
        if variant == "reference" or artifact.manifest.precision != "int8":
            return None
        return cpu_int8_request(artifact, simulated=variant == "simulated")

    @classmethod
    def open(cls, artifact: Artifact, variant: Variant) -> OnnxRuntimeBackend:
        """Open the graph that the variant asks for. Raises IncompatibleEngineError where it was not derived yet."""
        graph = cpu_graph(artifact, cls.engine_request(artifact, variant))
        if artifact.manifest.precision == "fp16" and variant == "native":
            _log.warning("ONNX Runtime computes %s in FP32: what is measured is FP32's", artifact.folder)
        spec = artifact.manifest.model
        return cls(graph, spec.classes, spec.input_size, as_written=variant == "simulated")

    def infer(self, images: Images) -> Logits:
        """(N, H, W, 3) uint8 RGB → logits (N, classes) float32, the caller's to keep."""
        check_images(images, self._input_size, closed=self._closed)
        try:
            logits: Logits = self._session.run(None, {self._input: np.ascontiguousarray(images)})[0]
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return logits

    def close(self) -> None:
        """Free the session."""
        if not self._closed:
            del self._session
            self._closed = True

    def __enter__(self) -> OnnxRuntimeBackend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
