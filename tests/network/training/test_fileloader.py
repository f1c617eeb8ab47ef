"""Images from files: decoded by worker processes, augmented by torchvision, and independent of the number of workers."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from littlenet import QUICK, little_net, same
from PIL import Image

from edge_resnet.core.errors import DataError, EdgeResnetError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import open_images
from edge_resnet.network.training import TrainData, TrainOptions, fileloader, fit
from edge_resnet.network.training.distributed import World
from edge_resnet.network.training.fileloader import FileLoader, transform_of

WHOLE = Preprocess(24, 16)
ALONE = World(0, 1, torch.device("cpu"))
OPTIONS = dataclasses.replace(QUICK, epochs=1, batch=8, augment="imagenet", workers=0)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Twelve images of each of four classes, of different sizes."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (20 + number, 40 - number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number:02}.png")
    return tmp_path


def open_loader(folder: Path, options: TrainOptions, world: World = ALONE) -> FileLoader:
    return FileLoader(open_images(folder), WHOLE, options, world)


def drained(loader: FileLoader, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = zip(*loader.epoch(epoch), strict=True)
    loader.close()
    return torch.cat(pixels), torch.cat(labels)


@pytest.mark.parametrize("augment", ["none", "shift", "cifar", "imagenet", "scales"])
def test_every_augmentation_gives_crops(folders: Path, augment: str) -> None:
    """(N, crop, crop, 3) uint8, each image once; another epoch gives other crops, except ``none``, which only shuffles."""
    loader = open_loader(folders, dataclasses.replace(OPTIONS, augment=augment))
    pixels, labels = drained(loader)
    assert (pixels.shape, pixels.dtype) == ((48, 16, 16, 3), torch.uint8)
    assert torch.bincount(labels).tolist() == [12] * 4
    other, _ = drained(loader, 1)
    changed = {image.numpy().tobytes() for image in other} - {image.numpy().tobytes() for image in pixels}
    assert bool(changed) == (augment != "none")


def test_scale_and_aspect_differ_from_image_to_image() -> None:
    """Crops of a ramp start at different positions and have different slopes in both directions."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 200, 200).contiguous()
    transform = transform_of("imagenet", 20)
    torch.manual_seed(0)
    crops = [transform(ramp)[0, 10].float() for _ in range(60)]
    slopes = torch.stack([(crop[-1] - crop[0]).abs() / 19 for crop in crops])
    assert slopes.max() / slopes.min() > 2
    assert any(crop[0] > crop[-1] for crop in crops)
    assert any(crop[0] < crop[-1] for crop in crops)


def test_the_papers_scales_are_between_256_and_480_for_224() -> None:
    """The short side is resized to 256..480 for crops of 224, so a crop covers 7/15 to 7/8 of it."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 200, 200).contiguous()
    transform = transform_of("scales", 56)
    torch.manual_seed(0)
    shares = [float((crop[-1] - crop[0]).abs()) / 199 for crop in (transform(ramp)[0, 10].float() for _ in range(80))]
    assert 0.44 < min(shares) < 0.55
    assert 0.75 < max(shares) < 0.90


def test_the_number_of_workers_does_not_matter(folders: Path) -> None:
    """Decoded here, by two workers, or by two machines: the same images in the same order, with a caller's generator
    untouched."""
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    here = drained(open_loader(folders, OPTIONS), 3)
    assert torch.equal(torch.rand(2), expected)
    workers = drained(open_loader(folders, dataclasses.replace(OPTIONS, workers=2)), 3)
    assert all(map(torch.equal, here, workers))
    halves = [list(open_loader(folders, OPTIONS, World(rank, 2, torch.device("cpu"))).epoch(3)) for rank in (0, 1)]
    joined = torch.cat([part[0] for pair in zip(*halves, strict=True) for part in pair])
    assert torch.equal(joined, here[0])


def test_training_from_files_resumes_bit_identically(folders: Path, tmp_path: Path) -> None:
    """Two epochs at once equal one and one more."""
    data = TrainData(open_images(folders), None, WHOLE)
    options = dataclasses.replace(OPTIONS, epochs=2)
    straight, resumed = little_net(), little_net()
    fit(straight, data, options)
    fit(little_net(), data, dataclasses.replace(options, max_steps=6), folder=tmp_path / "run")
    fit(resumed, data, options, folder=tmp_path / "run", resume=True)
    assert same(straight, resumed)


def test_an_image_that_cannot_be_read_is_replaced(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One of 48: a warning names it, and the next image and its label take its place."""
    (folders / "bee" / "03.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        pixels, _ = drained(open_loader(folders, dataclasses.replace(OPTIONS, augment="none")))
    assert len(pixels) == 48
    assert len({image.numpy().tobytes() for image in pixels}) == 47
    assert "03.png" in caplog.text


def test_too_many_unreadable_images_are_an_error(folders: Path) -> None:
    """Above 5 % of the set the error counts them."""
    for number in range(6):
        (folders / "cat" / f"{number:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match="images cannot be read"):
        drained(open_loader(folders, OPTIONS))


def test_a_worker_that_dies_is_an_error_with_a_hint(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed during an epoch, as by the kernel when memory runs out; the other worker is stopped too."""
    loaders: list[FileLoader] = []

    def kept(*args: Any) -> FileLoader:
        loaders.append(FileLoader(*args))
        return loaders[0]

    monkeypatch.setattr(fileloader, "FileLoader", kept)
    pids: list[int] = []

    def kill(stage: str, done: int, total: int) -> None:
        if done == 2:
            pids.extend(worker.pid for worker in loaders[0]._loader._iterator._workers)  # type: ignore[union-attr]
            os.kill(pids[0], signal.SIGKILL)

    data = TrainData(open_images(folders), None, WHOLE)
    options = dataclasses.replace(OPTIONS, workers=2, batch=2, epochs=40)
    with pytest.raises(EdgeResnetError, match="decodes images died") as caught:
        fit(little_net(), data, options, progress=kill)
    assert "--workers 0" in caught.value.hint
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
