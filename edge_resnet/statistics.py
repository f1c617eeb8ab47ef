"""Uncertainty of a measured share. Knows nothing of images or networks."""

from __future__ import annotations

import math

__all__ = ["wilson_interval"]

#: The normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of ``hits`` of ``count``, as shares in [0, 1].

    Wilson's score interval (1927): unlike the normal approximation it stays inside [0, 1] and holds for few images.
    """
    share = hits / count
    centre = share + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    scale = 1 + Z95**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
