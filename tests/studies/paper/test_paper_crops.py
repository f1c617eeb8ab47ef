"""The views of an image that testing averages over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.preprocess import preprocess
from edge_resnet.studies.paper.crops import CENTRE, at_scale, ten_crops


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(8, 40), st.integers(0, 10).map(lambda half: 2 * half))
def test_ten_crops_are_torchvisions(crop: int, more: int) -> None:
    """On a square image the ten crops are those of torchvision's ten_crop, as a set."""
    square = image(crop + more, crop + more)
    theirs = tv.ten_crop(torch.from_numpy(square).permute(2, 0, 1), [crop, crop])
    ours = ten_crops(square, crop)
    assert ours.shape == (10, crop, crop, 3)
    assert {view.tobytes() for view in ours} == {view.permute(1, 2, 0).contiguous().numpy().tobytes() for view in theirs}


def test_the_centre_crop_is_the_single_crop() -> None:
    """The centre of the ten has the pixels of the single crop, except for rounding in the resize."""
    whole = image(300, 411)
    square = preprocess(whole, Preprocess(256, 256))
    single = preprocess(whole, Preprocess(256, 224))
    centre = ten_crops(square, 224)[CENTRE]
    assert int(np.abs(centre.astype(int) - single.astype(int)).max()) <= 1


def test_one_size_gives_ten_views_of_two_kinds() -> None:
    """If the crop is the whole square, five views equal it and five its mirror image."""
    square = image(16, 16)
    ours = ten_crops(square, 16)
    assert all(np.array_equal(view, square) for view in ours[:5])
    assert all(np.array_equal(view, square[:, ::-1]) for view in ours[5:])


@given(st.integers(20, 90), st.integers(20, 90), st.integers(16, 80))
def test_scaling_is_torchvisions(height: int, width: int, short: int) -> None:
    """Size and pixels are those of torchvision's Resize of the short side of a Pillow image, as in usual ImageNet testing."""
    whole = image(height, width)
    theirs = np.asarray(tv.resize(Image.fromarray(whole), [short]))
    ours = at_scale(whole, short)
    assert min(ours.shape[:2]) == short
    assert np.array_equal(ours, theirs)


def test_an_image_of_the_right_size_is_unchanged() -> None:
    """The image is returned as it is if the short side already has the size."""
    whole = image(32, 50)
    assert at_scale(whole, 32) is whole


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_arrays_that_are_not_images_are_refused(wrong: np.ndarray) -> None:
    """Another shape or dtype is a ConfigError."""
    with pytest.raises(ConfigError):
        ten_crops(wrong, 4)
    with pytest.raises(ConfigError):
        at_scale(wrong, 4)
