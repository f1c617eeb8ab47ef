"""How far the logits of two computations of one network may be apart, by precision. Does not run any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from edge_resnet.core.records import Precision
from edge_resnet.runtime.backend import Logits

__all__ = ["LIMITS", "PEAK", "PROCESSOR_FP32", "Comparison", "Limit", "compare", "off", "spread"]


@dataclass(frozen=True)
class Limit:
    """``agreement``: least share of equal answers. ``off``: largest root of the mean squared difference of a logit, relative to
    the logits' own spread."""

    agreement: float
    off: float


#: On a GPU. FP32 is TF32 from Ampere on, which rounds each factor to 11 bits: 2**-11 a layer, over 54 layers in quadrature 0.4 %,
#: and room for what adds up. FP16 may keep sums of hundreds of products in as many bits: about ten times that. INT8's difference
#: must stay below what quantization itself changes (of other batch sizes: below this figure): both round the same values, but a
#: value near the border of two steps, which FP16 moves by up to a twentieth of a step, may fall to either side.
LIMITS: Mapping[Precision, Limit] = MappingProxyType(
    {"fp32": Limit(0.99, 0.015), "fp16": Limit(0.97, 0.05), "int8": Limit(0.92, 0.10)}
)
#: On a processor FP32 is FP32: only the order of sums differs.
PROCESSOR_FP32 = Limit(1.0, 0.001)
#: The largest of 128,000 differences is near five times their root mean square if they are distributed like noise.
PEAK = 8.0


@dataclass(frozen=True)
class Comparison:
    """``agreement``: share of equal answers, in 0..1. ``off``: as in ``Limit``. ``peak``: the largest difference of a logit, as a
    multiple of the spread."""

    agreement: float
    off: float
    peak: float

    def holds(self, limit: Limit) -> bool:
        """Whether answers and logits are as equal as they must be; false if a logit is not a finite number."""
        return self.agreement >= limit.agreement and self.off <= limit.off and self.peak <= PEAK * limit.off


def compare(found: Logits, wanted: Logits) -> Comparison:
    """Compare logits (N, classes) of the same images."""
    agreement = float(np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)))
    return Comparison(agreement, off(found, wanted), float(np.abs(found - wanted).max()) / spread(wanted))


def spread(logits: Logits) -> float:
    """How much the logits of one image differ from each other: a standard deviation."""
    return float((logits - logits.mean(axis=1, keepdims=True)).std())


def off(found: Logits, wanted: Logits) -> float:
    """Root of the mean squared difference, relative to the spread of ``wanted``."""
    return float(np.sqrt(np.mean((found - wanted) ** 2))) / spread(wanted)
