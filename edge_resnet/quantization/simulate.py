"""Logits of a graph over images, computed by ONNX Runtime exactly as the graph is written.

Does not know about ranges, artifacts or labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.core.errors import CalibrationError
from edge_resnet.runtime.onnxruntime import open_session

__all__ = ["Images", "Logits", "centred_error", "relative_error", "simulate"]

#: (n, H, W, 3) uint8 RGB, preprocessed.
Images: TypeAlias = npt.NDArray[np.uint8]
#: (N, classes) float32.
Logits: TypeAlias = npt.NDArray[np.float32]


def simulate(model: onnx.ModelProto | Path, batches: Iterable[Images]) -> Logits:
    """Run every batch through ``model``, a graph with or without Q/DQ: logits (N, classes) float32, in the order of the images.

    Batches may have any length; only their logits are kept. Raises CalibrationError if there is no image.
    """
    session = open_session(model if isinstance(model, Path) else model.SerializeToString(), as_written=True)
    input_name = session.get_inputs()[0].name
    logits = [session.run(None, {input_name: np.ascontiguousarray(batch)})[0] for batch in batches if len(batch)]
    if not logits:
        raise CalibrationError("there is no image to simulate on", hint="give a larger set")
    return np.concatenate(logits)


def centred_error(logits: Logits, reference: Logits) -> float:
    """``relative_error`` of logits less their mean over the classes: a shift of all logits changes no answer."""
    found, wanted = (each - each.mean(axis=1, keepdims=True) for each in (logits, reference))
    return relative_error(found, wanted)


def relative_error(logits: Logits, reference: Logits) -> float:
    """Squared error of (N, classes) over the reference's power, summed in float64.

    A result that is not finite is replaced by the largest float, which compares as the worst.
    """
    wanted = reference.astype(np.float64)
    error = float(((logits - wanted) ** 2).sum()) / max(float((wanted**2).sum()), np.finfo(np.float64).tiny)
    return error if math.isfinite(error) else float(np.finfo(np.float64).max)
