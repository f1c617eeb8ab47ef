"""calibration.py: images are drawn by class and seed, checked, preprocessed once, and known by their position in the set."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from exported import image_batch
from PIL import Image

from edge_resnet.core.errors import CalibrationError, DataError
from edge_resnet.core.records import Preprocess, QuantRecipe
from edge_resnet.images import imageset
from edge_resnet.images.calibration import draw_calibration_images, prepare_calibration_images
from edge_resnet.images.imageset import ImageSet, balanced_sample, from_arrays, open_images
from edge_resnet.images.preprocess import preprocess

SPEC = Preprocess(resize=16, crop=16)
RECIPE = QuantRecipe(images=12, seed=3)


def waves(count: int = 40, classes: int | None = 4) -> ImageSet:
    """Smooth images of 24 pixels, whose classes take turns."""
    return from_arrays("waves", image_batch(count, 24), None if classes is None else np.arange(count) % classes)


def test_the_draw_is_that_of_the_recipe() -> None:
    """Indices, labels and pixels are those of the balanced sample, in its order."""
    source = waves()
    expected = balanced_sample(source, 12, 3)
    with draw_calibration_images(source, RECIPE, SPEC) as images:
        assert (images.name, len(images), images.indices) == ("waves", 12, tuple(expected))
        assert Counter(images.images.labels) == {0: 3, 1: 3, 2: 3, 3: 3}
        for position, index in enumerate(expected):
            np.testing.assert_array_equal(images.load(position), preprocess(source.load(index), SPEC))


def test_the_same_seed_gives_the_same_digest() -> None:
    """Another seed draws other images, and another order is another digest."""
    digests = []
    for seed in (3, 3, 4):
        with draw_calibration_images(waves(), QuantRecipe(images=12, seed=seed), SPEC) as images:
            digests.append(images.digest)
    assert digests[0] == digests[1] != digests[2]


def test_each_image_is_preprocessed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the images are read, preprocessing runs once for each."""
    calls: list[int] = []

    def counted(*arguments: object) -> object:
        calls.append(1)
        return preprocess(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(imageset, "preprocess", counted)
    with draw_calibration_images(waves(), RECIPE, SPEC) as images:
        for _ in range(3):
            assert sum(len(batch) for batch in images.pixels.batches(5)) == 12
        images.load(0)
    assert len(calls) == 12


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    """Indices and labels are of the images that could be read."""
    for index, image in enumerate(image_batch(8, 24)):
        folder = tmp_path / ("even", "odd")[index % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    source = open_images(tmp_path)
    Path(source.where(1)).write_bytes(b"no image")
    with prepare_calibration_images(source, SPEC, indices=[5, 1, 0]) as images:
        assert images.indices == (5, 0)
        assert images.images.labels == (1, 0)
        np.testing.assert_array_equal(images.load(0), preprocess(source.load(5), SPEC))


def test_a_small_set_is_taken_whole_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Fewer images than the recipe asks for are used, and the log says so; one image is refused."""
    with caplog.at_level(logging.WARNING), draw_calibration_images(waves(5), RECIPE, SPEC) as images:
        assert sorted(images.indices) == [0, 1, 2, 3, 4]
    assert "waves has 5 images, fewer than the 12 asked for" in caplog.text
    with pytest.raises(DataError, match="needed at least"):
        draw_calibration_images(waves(1), RECIPE, SPEC)


def test_noise_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    """The error names the option; allowed noise is preprocessed like any image. Nothing is left in the folder."""
    noise = from_arrays("noise", np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), dtype=np.uint8))
    with pytest.raises(CalibrationError, match="random noise") as caught:
        draw_calibration_images(noise, RECIPE, SPEC, folder=tmp_path)
    assert "--allow-random" in caught.value.hint
    with draw_calibration_images(noise, RECIPE, SPEC, allow_noise=True, folder=tmp_path) as images:
        assert len(images) == 12
    assert list(tmp_path.iterdir()) == []
