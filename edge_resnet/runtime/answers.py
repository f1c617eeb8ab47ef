"""Logits → probabilities that can be trusted → the answer, which may be ``unknown``; by what the artifact's manifest says.

Does not know how temperature and threshold were found, nor about frames.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import Computation
from edge_resnet.core.errors import ConfigError
from edge_resnet.runtime.backend import Variant, backend_info
from edge_resnet.runtime.postprocess import ClassScore

__all__ = ["UNKNOWN", "AnswerRule", "answer_rule", "computation_of"]

_log = logging.getLogger(__name__)

#: The label of an answer that no class is probable enough for; its class index is -1.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class AnswerRule:
    """``temperature``: logits are divided by it before softmax. ``min_confidence``: an answer with a lower probability is
    ``unknown``; 0 for never."""

    temperature: float = 1.0
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"a temperature is above 0, not {self.temperature}", hint="1 leaves the probabilities as they are")
        if not 0 <= self.min_confidence < 1:
            raise ConfigError(f"min confidence lies in 0..1, not {self.min_confidence}", hint="0 is for no limit")

    def scaled(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (…, C) float32 divided by the temperature; their order stays."""
        return logits if self.temperature == 1 else logits / np.float32(self.temperature)

    def answer(self, top: Sequence[ClassScore]) -> ClassScore:
        """The best class of ``top``, or ``unknown`` with index -1 and the same probability if that is below the minimum."""
        best = top[0]
        return best if best.probability >= self.min_confidence else ClassScore(-1, UNKNOWN, best.probability)


def answer_rule(artifact: Artifact, backend: str, variant: Variant = "native", min_confidence: float | None = None) -> AnswerRule:
    """The rule of an artifact on the backend of that name; ``min_confidence`` takes the place of its threshold.

    Where the artifact says neither temperature nor threshold they are 1 and 0. Where it has them from another computation, such
    as TensorRT's INT8 for a CPU's, they are used with a warning. Raises ConfigError for a minimum outside [0, 1).
    """
    found = artifact.manifest.confidence
    if found is None:
        return AnswerRule(min_confidence=min_confidence or 0.0)
    here = computation_of(artifact, backend, variant)
    if here != found.computation:
        _log.warning(
            "temperature and threshold of %s were measured on %s (%s); here is %s: the share of wrong answers may differ",
            artifact.folder,
            found.computation,
            found.backend,
            here,
        )
    return AnswerRule(found.temperature, found.threshold if min_confidence is None else min_confidence)


def computation_of(artifact: Artifact, backend: str, variant: Variant = "native") -> Computation:
    """How the backend of that name, not ``auto``, computes the artifact's logits. Raises ConfigError for an unknown name."""
    precision = artifact.manifest.precision
    info = backend_info(backend)
    if variant == "simulated":
        return "int8-tensorrt"
    if variant == "reference" or precision == "fp32" or (precision == "fp16" and info.fp16_as_fp32):
        return "fp32"
    if precision == "fp16":
        return "fp16"
    return "int8-tensorrt" if info.form.kind == "plan" else "int8-cpu"
