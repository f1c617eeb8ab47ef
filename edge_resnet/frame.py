"""One picture from a source. Knows nothing of where it comes from or goes to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Frame"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: ``image`` (H, W, 3) uint8 BGR as captured, not to be changed.

    ``index``: in its source, from 0. ``captured_ns``: on the monotonic clock. ``source``: the file or camera, without a password.
    """

    image: npt.NDArray[np.uint8]
    index: int
    captured_ns: int
    source: str
