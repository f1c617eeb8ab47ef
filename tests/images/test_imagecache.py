"""imagecache.py: images are read back unchanged in batches of any size, and nothing is left behind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imagecache import ImageCache
from edge_resnet.images.imageset import from_arrays

Images = npt.NDArray[np.uint8]


def some(count: int, size: int = 5) -> Images:
    """Random images that all differ."""
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def cut(images: Images, size: int) -> Iterator[Images]:
    """The images ``size`` at a time, the last batch smaller."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


@settings(max_examples=30)
@given(count=st.integers(1, 20), written=st.integers(1, 7), read=st.integers(1, 7))
def test_images_and_digest_do_not_depend_on_the_batches(
    tmp_path_factory: pytest.TempPathFactory, count: int, written: int, read: int
) -> None:
    """Images written and read in batches of any size are the same, and the digest is that of the pixels."""
    images = some(count)
    with ImageCache(cut(images, written), tmp_path_factory.getbasetemp()) as cache:
        assert len(cache) == count
        np.testing.assert_array_equal(np.concatenate(list(cache.batches(read))), images)
        assert cache.digest == hashlib.sha256(images.tobytes()).hexdigest()


def test_positions_are_taken_in_the_requested_order(tmp_path: Path) -> None:
    """take gives the images at any positions, also repeated ones, as a new array."""
    images = some(6)
    with ImageCache(cut(images, 4), tmp_path) as cache:
        taken = cache.take([4, 0, 4])
        np.testing.assert_array_equal(taken, images[[4, 0, 4]])
        taken[:] = 0
        np.testing.assert_array_equal(cache.take([4])[0], images[4])


def test_batches_end_at_stop(tmp_path: Path) -> None:
    """``stop`` shortens the last batch; beyond the end it has no effect."""
    images = some(7)
    with ImageCache(cut(images, 7), tmp_path) as cache:
        assert [len(batch) for batch in cache.batches(3, 5)] == [3, 2]
        assert [len(batch) for batch in cache.batches(3, 50)] == [3, 3, 1]


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    """The file has no name while it is open, so an interrupted build leaves nothing behind."""
    with ImageCache(cut(some(3), 1), tmp_path):
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_no_image_is_an_error(tmp_path: Path) -> None:
    """Without an image there is nothing to calibrate on, and the hint says what images are."""
    with pytest.raises(CalibrationError, match="no image") as caught:
        ImageCache(iter([some(3)[:0]]), tmp_path)
    assert "a folder, a CSV, an .npz" in caught.value.hint


def test_an_error_of_the_images_is_passed_through(tmp_path: Path) -> None:
    """An error of the batches is passed through, and the file is closed."""

    def broken() -> Iterator[Images]:
        yield some(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImageCache(broken(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_preprocessed_once(tmp_path: Path) -> None:
    """The file holds what the network takes, and where each image is in the set."""
    with ImageCache.of_set(from_arrays("some", some(5, 48)), Preprocess(resize=16, crop=16), tmp_path) as cache:
        assert cache.take([0]).shape == (1, 16, 16, 3)
        assert len(cache) == 5
        assert cache.indices == (0, 1, 2, 3, 4)
