"""checks.py: sets of random noise are refused, real images are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from exported import image_batch
from PIL import Image

from edge_resnet.core.errors import CalibrationError
from edge_resnet.images.checks import refuse_noise
from edge_resnet.images.datasets import load_named
from edge_resnet.images.imageset import ImageSet, from_arrays, open_images

Images = npt.NDArray[np.uint8]


def noise(kind: str, count: int = 20, size: int = 32) -> Images:
    rng = np.random.default_rng(1)
    shape = (count, size, size, 3)
    drawn: dict[str, Callable[[], npt.NDArray[np.float64]]] = {
        "uniform": lambda: rng.uniform(0, 256, shape),
        "gaussian": lambda: rng.normal(128, 40, shape),
        "salt and pepper": lambda: rng.integers(0, 2, (*shape[:3], 1)) * np.full(3, 255.0),
    }
    return np.clip(drawn[kind](), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "salt and pepper"])
@pytest.mark.parametrize("count", [1, 16, 17, 40])
def test_noise_is_refused(kind: str, count: int) -> None:
    """Noise of any distribution and any number of images raises; the message names the set."""
    with pytest.raises(CalibrationError, match="static look like random noise"):
        refuse_noise(from_arrays("static", noise(kind, count)))


def test_real_and_smooth_images_pass() -> None:
    """Handwritten digits and smooth images are no noise."""
    refuse_noise(load_named("digits", "train"))
    refuse_noise(from_arrays("waves", image_batch(20, 32)))


def test_photographs_pass(real_data: Path) -> None:
    """Photographs and CIFAR-10's images of 32 pixels are no noise."""
    refuse_noise(open_images(real_data / "photos"))
    sheet = np.asarray(Image.open(real_data / "cifar10" / "train_00.webp"))
    tiles = sheet.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
    refuse_noise(from_arrays("cifar10", np.ascontiguousarray(tiles)))


@pytest.mark.parametrize(("noisy", "refused"), [(6, False), (10, True)])
def test_the_majority_decides(noisy: int, refused: bool) -> None:
    """A few noisy images among good ones pass, a few good ones among noise do not help."""
    mixed = from_arrays("mixed", np.concatenate([noise("uniform", noisy), image_batch(16 - noisy, 32)]))
    if refused:
        with pytest.raises(CalibrationError, match="noise"):
            refuse_noise(mixed)
    else:
        refuse_noise(mixed)


def test_at_most_sixteen_images_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check costs the same for a large set: up to 16 images including the first, spread over the set."""
    seen: list[int] = []
    load = ImageSet.load
    monkeypatch.setattr(ImageSet, "load", lambda self, index: seen.append(index) or load(self, index))
    for count in (1, 15, 16, 31, 33, 250):
        seen.clear()
        refuse_noise(from_arrays("waves", image_batch(count, 8)))
        assert len(seen) == len(set(seen)) <= 16
        assert len(seen) > min(count, 16) / 2
        assert (seen[0], seen[-1] >= count * 0.75 - 1) == (0, True)


def test_what_cannot_be_judged_is_left_to_the_pass(tmp_path: Path) -> None:
    """Unreadable, flat and one-pixel images are neither noise nor an error here; noise beside them is still detected."""
    for index, image in enumerate(image_batch(3, 32)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    refuse_noise(open_images(tmp_path))
    refuse_noise(from_arrays("flat", np.full((3, 8, 8, 3), 7, np.uint8)))
    refuse_noise(from_arrays("dots", np.zeros((3, 1, 1, 3), np.uint8)))
    for index, image in enumerate(noise("uniform", 3)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    with pytest.raises(CalibrationError, match="noise"):
        refuse_noise(open_images(tmp_path))
