"""What an image costs is known before it is decoded: pixels, and the scans of a JPEG."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.errors import DataError
from edge_resnet.images.imageset import open_images
from edge_resnet.images.limits import MAX_SCANS, count_scans, refuse_costly
from edge_resnet.images.preprocess import decode_image


def _jpeg(**options: object) -> bytes:
    y, x = np.mgrid[0:48, 0:64]
    buffer = BytesIO()
    Image.fromarray(np.stack([4 * x, 5 * y, x + y], axis=-1).astype(np.uint8)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are ``count``."""
    plain = _jpeg(progressive=True)
    more = count - count_scans(plain)
    last = plain.rfind(b"\xff\xda")
    return plain[:-2] + plain[last:-2] * more + b"\xff\xd9"


def _refused(data: bytes) -> None:
    file = BytesIO(data)
    with Image.open(file) as image:
        refuse_costly(image, file)


def test_a_small_file_is_no_large_image(tmp_path: Path) -> None:
    """A few bytes that claim 34 million pixels are refused by name; an even image of 12 million is read."""
    path = tmp_path / "bomb.tif"
    Image.new("1", (8192, 4096)).save(path, compression="group4")
    with pytest.raises(DataError, match=rf"bomb\.tif is no usual image: {path.stat().st_size} bytes claim 8192x4096 pixels"):
        decode_image(path)
    Image.new("L", (4000, 3000), 128).save(tmp_path / "even.png")
    assert decode_image(tmp_path / "even.png").shape == (3000, 4000, 3)


@pytest.mark.parametrize(
    ("options", "scans"), [({}, 1), ({"progressive": True}, 10), ({"progressive": True, "subsampling": 0}, 10)]
)
def test_the_scans_of_usual_images(options: dict[str, object], scans: int) -> None:
    """One of a baseline JPEG, ten of a progressive one."""
    assert count_scans(_jpeg(**options)) == scans
    _refused(_jpeg(**options))


def test_the_scans_of_thumbnails_and_appended_data_do_not_count() -> None:
    """A thumbnail in the metadata, and what follows the image, may contain anything."""
    plain = _jpeg()
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    stuffed = plain[:2] + thumbnail + plain[2:] + b"\xff\xda" * 500
    assert count_scans(stuffed) == 1
    _refused(stuffed)


@given(st.integers(MAX_SCANS - 3, MAX_SCANS + 3))
def test_the_limit(count: int) -> None:
    """As many scans as the limit pass, one more does not."""
    data = _with_scans(count)
    assert count_scans(data) == count
    if count <= MAX_SCANS:
        _refused(data)
    else:
        with pytest.raises(DataError, match=f"{count} scans"):
            _refused(data)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_are_counted(noise: bytes, at: int) -> None:
    """Whatever the data, counting ends, and the plain count of markers is never smaller."""
    plain = _jpeg()
    data = plain[:at] + noise + plain[at:]
    assert 0 <= count_scans(data) <= data.count(b"\xff\xda")


def test_a_file_with_too_many_scans_is_refused_by_name(tmp_path: Path) -> None:
    """For a prediction, for a set and for calibration alike: all of them decode with the same function."""
    path = tmp_path / "bomb.jpg"
    path.write_bytes(_with_scans(40_000))
    for read in (decode_image, lambda path: open_images(path), lambda path: open_images(path.parent).load(0)):
        with pytest.raises(DataError, match=r"bomb\.jpg is no usual JPEG: it has 40000 scans, and 100 are the limit"):
            read(path)
