"""checks.py: repeated and flat images are detected, others are not, and no set raises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from exported import image_batch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.records import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edge_resnet.images.calibration import prepare_calibration_images
from edge_resnet.images.checks import MAX_SAMPLED, normalised, repeated, sampled_stats, stats_of
from edge_resnet.images.datasets import load_named
from edge_resnet.images.imageset import ImageSet, from_arrays, open_images
from edge_resnet.images.preprocess import preprocess

Images = npt.NDArray[np.uint8]
SPEC = Preprocess(resize=16, crop=16)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 1000])
def test_at_most_sixty_four_are_sampled(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first to near the last, evenly, each once: a large set costs no more than a small one."""
    asked: list[int] = []
    load = ImageSet.load
    monkeypatch.setattr(ImageSet, "load", lambda self, index: asked.append(index) or load(self, index))
    found = list(sampled_stats(from_arrays("set", np.zeros((count, 4, 4, 3), np.uint8))))
    assert len(found) == len(asked) == len(set(asked)) <= MAX_SAMPLED
    assert len(asked) > min(count, MAX_SAMPLED) / 2
    assert asked[0] == 0
    assert asked[-1] >= 0.9 * (count - 1)


@pytest.mark.parametrize("size", [16, 64, 200])
def test_copies_are_counted_and_different_images_are_not(size: int) -> None:
    """Ten images, each five times: forty repeat an earlier one, in any order; each once: none."""
    different = image_batch(10, size)
    copies = np.random.default_rng(0).permutation(np.repeat(different, 5, axis=0))
    assert repeated([stats_of(image) for image in copies]) == 40
    assert repeated([stats_of(image) for image in different]) == 0


def test_a_frame_with_other_noise_and_exposure_is_the_same_frame() -> None:
    """A camera's noise of four grey levels and a light one level brighter do not make a new image."""
    rng = np.random.default_rng(0)
    scene = image_batch(1, 96)[0].astype(np.int64)
    frames = [np.clip(scene + 1 + np.rint(4 * rng.standard_normal(scene.shape)), 0, 255) for _ in range(6)]
    assert repeated([stats_of(frame.astype(np.uint8)) for frame in frames]) == 5


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 90)])
def test_one_colour_is_flat_whatever_the_colour(colour: tuple[int, int, int]) -> None:
    """Grey or not, with a level of noise or without; a flat image repeats nothing, and a faint one is not flat."""
    plain = np.broadcast_to(np.array(colour, np.uint8), (32, 32, 3))
    noisy = np.clip(plain.astype(np.int64) + np.random.default_rng(0).integers(-1, 2, plain.shape), 0, 255).astype(np.uint8)
    assert stats_of(plain).flat
    assert stats_of(noisy).flat
    assert repeated([stats_of(plain), stats_of(noisy)]) == 0
    assert not stats_of(np.clip(image_batch(1, 32)[0] // 8 + 100, 0, 255).astype(np.uint8)).flat


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_any_shape_has_statistics(height: int, width: int, seed: int) -> None:
    """From one pixel on: finite figures, the mean that numpy finds, a thumbnail of one size."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    one = stats_of(image)
    assert one.thumbnail.shape == (8, 8)
    assert one.mean == pytest.approx(image.reshape(-1, 3).mean(axis=0) / 255, abs=1e-6)
    assert (one.square >= one.mean**2 - 1e-9).all()
    assert np.isfinite(one.thumbnail).all()


def test_normalised_figures_are_those_of_the_networks_input() -> None:
    """Mean and deviation over all pixels, as numpy finds them on the preprocessed images of several sizes."""
    spec = Preprocess(resize=20, crop=16)
    images = image_batch(9, 24)
    batch = np.stack([preprocess(image, spec) for image in images]).reshape(-1, 3) / 255
    wanted = (batch - IMAGENET_MEAN) / np.array(IMAGENET_STD)
    with prepare_calibration_images(from_arrays("set", images), spec) as prepared:
        mean, deviation = normalised(list(sampled_stats(prepared)), spec)
    assert mean == pytest.approx(wanted.mean(axis=0), abs=1e-5)
    assert deviation == pytest.approx(wanted.std(axis=0), abs=1e-4)


def test_what_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    """Broken files and an empty set give fewer statistics and no error."""
    for index, image in enumerate(image_batch(3, 16)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = open_images(tmp_path)
    assert len(list(sampled_stats(images))) == 3
    with prepare_calibration_images(images, SPEC) as prepared:
        assert len(list(sampled_stats(prepared))) == 3
    assert list(sampled_stats(images.subset([]))) == []


def test_handwritten_digits_are_neither_repeated_nor_flat() -> None:
    """The least colourful real set at hand: 64 different digits of eight pixels."""
    found = list(sampled_stats(load_named("digits", "train")))
    assert len(found) > MAX_SAMPLED / 2
    assert repeated(found) == 0
    assert not any(one.flat for one in found)


def test_photographs_are_neither_repeated_nor_flat(real_data: Path) -> None:
    """CIFAR-10's first thousand images and ImageNet's five hundred: none looks like another."""
    sheet = np.asarray(Image.open(real_data / "cifar10" / "train_00.webp"))
    tiles = sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
    for images in (from_arrays("cifar10", np.ascontiguousarray(tiles)), open_images(real_data / "imagenet" / "sample500.csv")):
        found = list(sampled_stats(images))
        assert (repeated(found), sum(one.flat for one in found)) == (0, 0)


def test_frames_of_a_video_repeat(real_data: Path) -> None:
    """All frames but a few of two seconds of a video look like an earlier one."""
    cv2 = pytest.importorskip("cv2")
    video, frames = cv2.VideoCapture(str(real_data / "video" / "bird.mkv")), []
    while (read := video.read())[0]:
        frames.append(stats_of(np.ascontiguousarray(read[1][..., ::-1])))
    video.release()
    assert len(frames) > 50
    assert repeated(frames) > 0.9 * len(frames)
