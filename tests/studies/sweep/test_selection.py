"""Images for calibration and for evaluation are disjoint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.core.errors import DataError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.images.imageset import ImageSet, from_arrays
from edge_resnet.studies.sweep.selection import hold_out, shared_images


def _numbered(count: int, classes: int = 7) -> ImageSet:
    """Images that all differ."""
    pixels = np.zeros((count, 2, 2, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return from_arrays("numbers", pixels, np.arange(count) % classes)


@settings(max_examples=30)
@given(st.integers(24, 700), st.integers(1, 400), st.integers(0, 5))
def test_the_parts_make_the_whole_and_share_nothing(count: int, wanted: int, seed: int) -> None:
    """Every image is in exactly one part; calibration gets the recipe's number, but at most a third and 128."""
    images = _numbered(count)
    split = hold_out(images, QuantRecipe(images=wanted, seed=seed))
    assert split.evaluation is not None
    assert split.calibration is not None
    assert len(split.calibration) == min(128, wanted, count // 3)
    assert len(split.evaluation) + len(split.calibration) == count
    assert shared_images(split.calibration, split.evaluation) == 0
    assert shared_images(split.calibration, images) == len(split.calibration)


def test_the_same_seed_gives_the_same_images_and_another_one_others() -> None:
    """On every machine and in every run."""
    digests = [hold_out(_numbered(300), QuantRecipe(seed=seed)).evaluation for seed in (0, 0, 1)]
    one, again, other = (images.digest() if images else "" for images in digests)
    assert one == again != other


def test_classes_take_turns() -> None:
    """Classes differ by at most one image."""
    calibration = hold_out(_numbered(210), QuantRecipe(images=35)).calibration
    assert calibration is not None
    assert set(np.bincount(np.array(calibration.labels))) == {5}


def test_too_few_images_are_refused_with_a_hint() -> None:
    """Separate calibration images are then needed."""
    with pytest.raises(DataError, match="too few") as caught:
        hold_out(_numbered(23), QuantRecipe())
    assert "--calib-data" in caught.value.hint


def test_both_notes_give_the_numbers() -> None:
    """Of the images to evaluate and to calibrate on."""
    split = hold_out(_numbered(300), QuantRecipe(images=50))
    assert split.evaluation_note == "250 of the 300 images of numbers"
    assert "the other 50 images of numbers" in split.calibration_note
