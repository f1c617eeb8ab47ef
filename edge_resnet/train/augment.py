"""Augmentation of pictures that lie in memory: shift and mirror, a batch at a time. Knows nothing of files and of the loop.

torchvision's transforms.v2 draw and crop one picture after the other; over a whole batch of small pictures at once the same
costs a tenth. What is drawn depends on the seed, the epoch and a picture's place in it alone: not on the number of processes
that share a batch, nor on where a training was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_resnet.images.preprocess import Picture

__all__ = ["PADDING", "Draws", "draw", "shifted"]

#: On each side before the random crop, in pixels (He et al. 2015, section 4.2).
PADDING = 4


@dataclass(frozen=True, eq=False)
class Draws:
    """What happens to each of N pictures: the crop's ``tops`` and ``lefts`` (N,) in 0..8, ``mirrored`` (N,) bool."""

    tops: npt.NDArray[np.int64]
    lefts: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]

    def __getitem__(self, chosen: slice) -> Draws:
        return Draws(self.tops[chosen], self.lefts[chosen], self.mirrored[chosen])


def draw(count: int, rng: np.random.Generator, *, mirror: bool) -> Draws:
    """Draw shifts of up to 4 pixels each way and, where ``mirror`` is set, mirror images with probability 1/2."""
    tops = rng.integers(0, 2 * PADDING + 1, count)
    lefts = rng.integers(0, 2 * PADDING + 1, count)
    return Draws(tops, lefts, rng.random(count) < (0.5 if mirror else 0.0))


def shifted(images: Picture, draws: Draws) -> Picture:
    """Apply ``draws`` to ``images`` (N, H, W, 3) uint8: padded by 4 black pixels, cropped back, mirrored. A copy.

    The paper's augmentation of CIFAR-10 (section 4.2).
    """
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    rows = draws.tops[:, None] + np.arange(height)
    forward = np.arange(width)
    columns = draws.lefts[:, None] + np.where(draws.mirrored[:, None], forward[::-1], forward)
    cropped: Picture = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cropped
