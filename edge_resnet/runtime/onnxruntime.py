"""ONNX Runtime on the CPU: FP32, fast INT8, and the simulation of TensorRT's INT8. Also opens every ONNX Runtime session.

Does not know how the graphs are derived. Loads onnxruntime when a session is opened, with its telemetry off.
"""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

import numpy as np

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import BackendError
from edge_resnet.runtime.backend import (
    BackendClass,
    BackendInfo,
    EngineForm,
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

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["BACKEND", "QDQ_FOR_CPU", "OnnxRuntimeBackend", "load_onnxruntime", "open_session"]

#: The Q/DQ graph for the CPU, which OpenVINO runs too: an engine that was derived for one of the two is opened by the other.
QDQ_FOR_CPU = EngineForm("qdq", family="onnxruntime", version=3)
_log = logging.getLogger(__name__)


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime and keep it from counting its use: since 1.29 it writes into the home folder and reports to its maker.

    It reads the variable when it is imported; child processes inherit it. A value that the user has set stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def open_session(graph: Path | bytes, *, as_written: bool = False) -> onnxruntime.InferenceSession:
    """A session on the CPU, on all cores that this process may use.

    ``graph``: a file, or a serialized model. ``as_written``: leave Q/DQ pairs as they are. Raises BackendError if ONNX Runtime
    cannot load the graph.
    """
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about its own optimizations
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Threads that spin after a run take the cores from preprocessing and from a second session: two networks in turn, as in
    # eval, took 2.4 times as long with it. Within a run they may spin, so that the latency stays the same.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if as_written:
        # Its passes over Q/DQ would round float biases to int32, already at the basic optimization level, which TensorRT does not
        # do: 8 of 2,000 predictions changed. The other optimizations only change the order of sums.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    source, name = (str(graph), str(graph)) if isinstance(graph, Path) else (graph, "the graph")
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise BackendError(f"ONNX Runtime cannot load {name}: {_first_line(error)}") from error


class OnnxRuntimeBackend:
    """The network in ONNX Runtime's CPU provider, on all cores that this process may use."""

    name = "onnxruntime"

    def __init__(self, graph: Path, classes: int, input_size: int, *, as_written: bool = False) -> None:
        self._session = open_session(graph, as_written=as_written)
        self._input = self._session.get_inputs()[0].name
        self._input_size = input_size
        self._closed = False
        self.classes = classes

    @classmethod
    def engine_request(cls, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:
        """INT8 is derived for this kind of CPU, or in TensorRT's form for the simulation; float graphs are run as they are."""
        refuse_tuning(tuning)
        if variant == "reference" or artifact.manifest.precision != "int8":
            return None
        return cpu_int8_request(artifact, QDQ_FOR_CPU, simulated=variant == "simulated")

    @classmethod
    def open(cls, artifact: Artifact, variant: Variant) -> OnnxRuntimeBackend:
        """Open the graph of that variant. Raises IncompatibleEngineError if it has not been derived yet."""
        graph = cpu_graph(artifact, cls.engine_request(artifact, variant))
        if artifact.manifest.precision == "fp16" and variant == "native":
            _log.warning("ONNX Runtime computes %s in FP32: measurements are those of FP32", artifact.folder)
        spec = artifact.manifest.model
        return cls(graph, spec.classes, spec.input_size, as_written=variant == "simulated")

    def infer(self, images: Images) -> Logits:
        """(N, H, W, 3) uint8 RGB → logits (N, classes) float32, which belong to the caller."""
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


def _load() -> BackendClass:
    load_onnxruntime()
    return OnnxRuntimeBackend


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


BACKEND = BackendInfo(
    load=_load,
    requirements=(Requirement("onnxruntime", "onnxruntime"),),
    form=QDQ_FOR_CPU,
    auto_rank=4,
    simulates=True,
    fp16_as_fp32=True,
)
