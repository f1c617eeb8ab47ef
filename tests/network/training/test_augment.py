"""The paper's augmentation of small images: padded, cropped, mirrored, and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.images.preprocess import ImageArray
from edge_resnet.network.training.loader import draw, shifted


def noise(count: int, side: int = 32) -> ImageArray:
    return np.random.default_rng(0).integers(1, 256, (count, side, side, 3), dtype=np.uint8)


def augmented(images: ImageArray, seed: int, *, mirror: bool) -> ImageArray:
    return shifted(images, draw(len(images), np.random.default_rng(seed), mirror=mirror))


@settings(max_examples=40)
@given(st.integers(0, 9), st.sampled_from([8, 32]), st.booleans(), st.integers(0, 999))
def test_every_augmented_image_is_a_crop_of_its_padded_source(count: int, side: int, flip: bool, seed: int) -> None:
    """Each result is one of the 81 crops of the image padded by 4, or of its mirror image with flips."""
    images = noise(count, side)
    result = augmented(images, seed, mirror=flip)
    assert result.shape == images.shape
    assert result.dtype == np.uint8
    for image, changed in zip(images, result, strict=True):
        ways = [image, image[:, ::-1]] if flip else [image]
        padded = [np.pad(way, ((4, 4), (4, 4), (0, 0))) for way in ways]
        crops = (way[top : top + side, left : left + side] for way in padded for top in range(9) for left in range(9))
        assert any(np.array_equal(crop, changed) for crop in crops)


def test_augmentation_uses_every_shift_and_half_the_mirrors() -> None:
    """Over many images all 81 shifts occur evenly and about half are mirrored; the input is unchanged, the seed decides."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[8, 4], image[8, 11] = (255, 0, 0), (0, 255, 0)  # red left and green right, mirror images in place
    images = np.repeat(image[None], 8100, axis=0)
    result = augmented(images, 0, mirror=True)
    red = np.argwhere(result[..., 0] == 255)
    green = np.argwhere(result[..., 1] == 255)
    mirrored = red[:, 2] > green[:, 2]
    assert 0.47 < mirrored.mean() < 0.53
    left = np.minimum(red[:, 2], green[:, 2])
    counts = np.bincount(red[:, 1] * 16 + left)
    assert np.count_nonzero(counts) == 81
    assert counts[counts > 0].min() > 50
    assert np.array_equal(images[-1], image)
    assert np.array_equal(result, augmented(images, 0, mirror=True))


def test_a_part_of_the_draws_belongs_to_that_part_of_the_images() -> None:
    """Augmented in slices, as by several processes, images are the same as together."""
    images = noise(12)
    draws = draw(12, np.random.default_rng(3), mirror=True)
    together = shifted(images, draws)
    apart = [shifted(images[part], draws[part]) for part in (slice(0, 5), slice(5, 12))]
    assert np.array_equal(together, np.concatenate(apart))
