"""Images as frames: in natural order, upright, BGR; unreadable ones are dropped, counted and named."""

from __future__ import annotations

import logging
import resource
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources.imagefiles import ImagesSource


def _save(path: Path, colour: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_pixels_are_bgr(tmp_path: Path) -> None:
    """A red image has red as its last channel, like a camera's frame."""
    (frame,) = ImagesSource(str(_save(tmp_path / "red.png")))
    assert frame.image.shape == (4, 6, 3)
    assert frame.image.dtype == np.uint8
    assert frame.image[0, 0].tolist() == [0, 0, 255]


def test_order_is_natural(tmp_path: Path) -> None:
    """img2 comes before img10, and each frame has the name of its file."""
    names = ["img1.png", "img2.png", "img10.png", "img20.PNG", "other.jpg"]
    for name in reversed(names):
        _save(tmp_path / name)
    frames = list(ImagesSource(str(tmp_path)))
    assert [Path(frame.source).name for frame in frames] == names
    assert [frame.index for frame in frames] == list(range(5))
    stamps = [frame.captured_ns for frame in frames]
    assert stamps == sorted(stamps)


def test_a_photograph_taken_sideways_is_upright(tmp_path: Path) -> None:
    """The EXIF orientation is applied."""
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "side.png", exif=exif)
    (frame,) = ImagesSource(str(tmp_path / "side.png"))
    assert frame.image.shape == (8, 4, 3)
    assert frame.image[0, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["with space.png", "größe ✓.png", "a[1].png", "100%.png"])
def test_any_name(tmp_path: Path, name: str) -> None:
    """Spaces, other alphabets and the special characters of patterns may be parts of names."""
    (frame,) = ImagesSource(str(_save(tmp_path / name)))
    assert frame.source.endswith(name)


def test_globs(tmp_path: Path) -> None:
    """* and ** find images, and only images."""
    for name in ("a/1.png", "a/b/2.png", "3.png"):
        _save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    assert len(list(ImagesSource(f"{tmp_path}/*.png"))) == 1
    assert len(list(ImagesSource(f"{tmp_path}/**/*"))) == 3


def test_a_folder_is_not_searched_below(tmp_path: Path) -> None:
    """Only the images in the folder itself are read; hidden ones are not."""
    for name in ("1.png", "sub/2.png", ".hidden.png"):
        _save(tmp_path / name)
    assert len(list(ImagesSource(str(tmp_path)))) == 1


def test_a_corrupt_image_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The others are delivered, the dropped one is counted and named, and indices have no gap."""
    for name in ("1.png", "3.png"):
        _save(tmp_path / name)
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    source = ImagesSource(str(tmp_path))
    with caplog.at_level(logging.WARNING, "edge_resnet"):
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1]
    assert source.dropped == 1
    assert "2.png" in caplog.text


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_that_can_be_read(tmp_path: Path, count: int) -> None:
    """If no image of a folder can be read, the error names the last one."""
    for index in range(count):
        (tmp_path / f"{index}.jpg").write_text("no image")
    with pytest.raises(SourceError, match=f"{count - 1}.jpg") as caught:
        list(ImagesSource(str(tmp_path)))
    assert caught.value.hint


def test_a_folder_without_images(tmp_path: Path) -> None:
    """The hint says which suffixes were looked for."""
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match="contains no images") as caught:
        ImagesSource(str(tmp_path))
    assert ".jpg" in caught.value.hint


def test_an_image_that_claims_more_than_there_is(tmp_path: Path) -> None:
    """A file that claims 100,000 x 100,000 pixels is refused before 30 GB are allocated."""
    head = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    body = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + head + zlib.crc32(head).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(body + b"\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match=r"huge\.png is too large"):
        list(ImagesSource(str(tmp_path / "huge.png")))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_closing_ends_the_frames(tmp_path: Path) -> None:
    """After close no more images come."""
    for name in ("1.png", "2.png"):
        _save(tmp_path / name)
    source = ImagesSource(str(tmp_path))
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []


def test_closing_twice(tmp_path: Path) -> None:
    """close may be called more than once."""
    with ImagesSource(str(_save(tmp_path / "a.png"))) as source:
        source.close()
    source.close()


def test_the_photographs(real_data: Path) -> None:
    """All eleven are delivered, in the order of their names."""
    frames = list(ImagesSource(str(real_data / "photos")))
    assert len(frames) == 11
    assert [Path(frame.source).stem for frame in frames][:2] == ["banana_0", "bird_0"]
