"""Artifact → the engine that a backend needs on this machine. Knows how to derive each form; opens none of them.

A backend whose engines are derived here is one function and one line in ``DERIVATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

import onnx

from edge_resnet.artifact import MODEL, Artifact
from edge_resnet.backends import EngineRequest, Variant, load_backend, resolve_backend
from edge_resnet.enginecache import find_engine, store_engine
from edge_resnet.quantization.corrections import read_corrections
from edge_resnet.quantization.qdq import QdqForm, quantize

__all__ = ["DERIVATIONS", "compile_engine"]


def compile_engine(artifact: Artifact, backend: str = "auto", variant: Variant = "native") -> Path | None:
    """Make sure that the engine is there, and return its folder; None where the backend runs the artifact's graph itself.

    An engine that is cached, whole and made from the same truth is kept. Raises what the derivation raises.
    """
    name = resolve_backend(backend)
    request = load_backend(name).engine_request(artifact, variant)
    if request is None:
        return None
    return find_engine(artifact, request.key) or DERIVATIONS[name](artifact, request)


def _qdq_graph(artifact: Artifact, request: EngineRequest) -> Path:
    """FP32 graph and ranges → the graph with Q/DQ pairs that ONNX Runtime fuses."""
    form = cast("QdqForm", request.form)
    graph = quantize(onnx.load(artifact.model_path), artifact.calibration(), form, read_corrections(artifact))
    return store_engine(artifact, request.key, request.form, lambda folder: onnx.save(graph, folder / MODEL))


DERIVATIONS: Mapping[str, Callable[[Artifact, EngineRequest], Path]] = MappingProxyType({"onnxruntime": _qdq_graph})
