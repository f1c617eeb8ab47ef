"""Whether a camera still shows something: frames that repeat, and black ones. Knows no camera."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Look"]

#: Pixels looked at along the longer side: a change in the picture shows in them, and the look takes microseconds.
_ACROSS = 32
#: Grey levels, 0 to 255: what less than a hundredth of a black picture reaches. A covered lens has noise.
_BLACK = 20


class Look:
    """Judges frames one after another; a camera with a sensor never gives the same bytes for long."""

    def __init__(self, *, frozen_s: float, black_s: float) -> None:
        self._frozen_ns, self._black_ns = frozen_s * 1e9, black_s * 1e9
        self._last = b""
        self._same_since = self._black_since = 0
        self._is_black = False
        self.frozen = False
        self.black = False

    def see(self, image: npt.NDArray[np.uint8], at_ns: int) -> None:
        """Take the next frame (H, W, 3), captured at ``at_ns``; afterwards ``frozen`` and ``black`` hold."""
        step = max(1, max(image.shape[:2]) // _ACROSS)
        sample = image[step // 2 :: step, step // 2 :: step]
        content = sample.tobytes()
        if content != self._last:
            self._last, self._same_since = content, at_ns
        is_black = int(np.count_nonzero(sample >= _BLACK)) * 100 < sample.size
        if is_black and not self._is_black:
            self._black_since = at_ns
        self._is_black = is_black
        self.frozen = at_ns - self._same_since >= self._frozen_ns
        self.black = is_black and at_ns - self._black_since >= self._black_ns
