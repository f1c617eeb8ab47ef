"""checks.py: frozen and black frames are detected after their time, and not before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edge_resnet.images.checks import FrozenFrameDetector

SECOND = 1_000_000_000


def noise(seed: int, high: int = 255, size: tuple[int, int] = (120, 160)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, high + 1, (*size, 3), dtype=np.uint8)


def seen(images: list[npt.NDArray[np.uint8]], each_s: float = 1.0) -> list[tuple[bool, bool]]:
    """Whether the video is frozen, and black, after each frame."""
    detector = FrozenFrameDetector(frozen_s=4, black_s=2)
    found = []
    for index, image in enumerate(images):
        detector.see(image, int(index * each_s * SECOND))
        found.append((detector.frozen, detector.black))
    return found


def test_an_image_that_repeats_is_frozen_after_its_time() -> None:
    """Four seconds of the same bytes; a new image ends it at once."""
    assert [frozen for frozen, _ in seen([noise(0)] * 7 + [noise(1)])] == [False] * 4 + [True] * 3 + [False]


def test_noise_is_never_frozen_and_darkness_is_black() -> None:
    """A covered lens has noise: it is black and not frozen. Light ends it at once."""
    assert seen([noise(seed, 12) for seed in range(4)] + [noise(9)]) == [
        (False, False), (False, False), (False, True), (False, True), (False, False),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 500), (2160, 3840)])
def test_any_size_is_accepted(size: tuple[int, int]) -> None:
    """One pixel, and 4K."""
    assert seen([noise(3, size=size)] * 6)[-1][0]


def test_a_small_light_is_not_black() -> None:
    """A lit window in a dark image is not black."""
    image = noise(0, 5)
    image[40:80, 50:100] = 200
    assert not any(black for _, black in seen([image] * 5))
