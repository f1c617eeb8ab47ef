"""Whether a graph computes what it was made of, at several batch sizes. Does not know what that is, nor how graphs are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.graphcheck import INPUT, OUTPUT
from edge_resnet.core.errors import ExportError
from edge_resnet.runtime.onnxruntime import open_session

__all__ = ["TOLERANCE", "VERIFY_BATCHES", "largest_difference"]

Pixels: TypeAlias = npt.NDArray[np.uint8]
Logits: TypeAlias = npt.NDArray[np.float32]

#: Batch sizes at which both must agree; 5 because it is not a power of two.
VERIFY_BATCHES = (1, 2, 5)
#: Largest allowed difference of a logit relative to the largest logit. FP32 sums in another order stay ten times below it.
TOLERANCE = 1e-4


def largest_difference(graph: Path | bytes, pixels: Pixels, expected: Callable[[Pixels], Logits], whose: str) -> float:
    """Run ``graph`` and ``expected`` on the first 1, 2 and 5 of ``pixels`` (≥ 5, H, W, 3) uint8 RGB; ``whose``: names the latter.

    Returns the largest absolute difference of a logit. Raises ExportError if it exceeds 1e-4 times the largest logit (1e-4 if
    that is below 1): a class that leads by more than twice this cannot have changed.
    """
    session = open_session(graph)
    worst = 0.0
    for batch in VERIFY_BATCHES:
        images = np.ascontiguousarray(pixels[:batch])
        wanted = expected(images)
        measured = session.run([OUTPUT], {INPUT: images})[0]
        if measured.shape != wanted.shape:
            raise ExportError(f"the exported graph returns {measured.shape} for batch {batch}, {whose} {wanted.shape}")
        difference = float(np.abs(measured - wanted).max())
        allowed = TOLERANCE * max(1.0, float(np.abs(wanted).max()))
        if not difference <= allowed:  # "not <=" rather than ">", so that a NaN fails
            changed = int((measured.argmax(1) != wanted.argmax(1)).sum())
            raise ExportError(
                f"the exported graph differs from {whose} at batch {batch}: max abs {difference:.2e}, {changed} classes changed",
                hint="report this with the versions that `edge-resnet doctor` prints",
            )
        worst = max(worst, difference)
    return worst
