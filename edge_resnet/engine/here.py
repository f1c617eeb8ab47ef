"""The engine that this machine's TensorRT and GPU need for an artifact. Knows how to ask them, and builds nothing."""

from __future__ import annotations

import tensorrt

from edge_resnet.artifact.enginecache import EngineFacts, EngineOptions
from edge_resnet.device.gpu import first_gpu
from edge_resnet.engine.dialect import dialect_of

__all__ = ["facts_here"]


def facts_here(truth: str, options: EngineOptions) -> EngineFacts:
    """What an engine of ``truth`` with these options would hold for. Raises BackendError where there is no GPU, or a TensorRT
    that is too old."""
    gpu, dialect = first_gpu(), dialect_of(tensorrt)
    return EngineFacts(str(tensorrt.__version__), gpu.name, gpu.compute_capability, truth, dialect, options)
