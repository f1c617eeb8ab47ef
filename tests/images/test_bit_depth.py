"""Images of more than 8 bits a channel: decoded to the right brightness, or refused."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet.core.errors import DataError
from edge_resnet.images.preprocess import decode_image

GREY = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16-bit RGB, (H, W, 3) uint16: Pillow reads such files but cannot write them."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff12(pixels: np.ndarray) -> bytes:
    """A TIFF of packed 12-bit grey, (H, W) of an even number of pixels."""
    pairs = pixels.reshape(-1, 2).astype(np.uint32)
    packed = b"".join(int(left << 12 | right).to_bytes(3, "big") for left, right in pairs)
    height, width = pixels.shape
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, height), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + packed


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("full.png", GREY.astype(np.uint16) * 257),
        ("full.tif", GREY.astype(np.uint16) * 257),
        ("eight.tif", GREY.astype(np.int32)),
        ("eight.png", GREY.astype(np.uint16)),
    ],
)
def test_a_known_range_gives_the_right_grey(tmp_path: Path, name: str, stored: np.ndarray) -> None:
    """Values that use all 16 bits keep their upper byte; values up to 255 are 8-bit grey, whatever they are stored in."""
    Image.fromarray(stored).save(tmp_path / name)
    assert np.array_equal(decode_image(tmp_path / name), np.repeat(GREY[..., None], 3, axis=2))


def test_16_bit_colours_and_12_bit_grey_that_say_so_are_scaled(tmp_path: Path) -> None:
    """Formats that name their depth need no guess."""
    (tmp_path / "rgb.png").write_bytes(png16(np.repeat(GREY[..., None], 3, axis=2).astype(np.uint16) * 257))
    (tmp_path / "grey.tif").write_bytes(tiff12(GREY.astype(np.uint16) * 16))
    for name in ("rgb.png", "grey.tif"):
        assert np.array_equal(decode_image(tmp_path / name)[..., 0], GREY)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_fewer_bits_in_a_larger_type_are_refused(tmp_path: Path, bits: int) -> None:
    """The image of a 12-bit camera in a 16-bit file would be nearly black, in grey and in colour."""
    shallow = GREY.astype(np.uint16) << (bits - 8)
    Image.fromarray(shallow).save(tmp_path / "grey.png")
    (tmp_path / "rgb.png").write_bytes(png16(np.repeat(shallow[..., None], 3, axis=2)))
    for name in ("grey.png", "rgb.png"):
        with pytest.raises(DataError, match=rf"{name}: 16-bit pixels that reach only \d+ of 65535") as caught:
            decode_image(tmp_path / name)
        assert "16 bits" in caught.value.hint


@pytest.mark.parametrize("values", [[0, 70_000], [-1, 200], [0.0, 0.5]])
def test_an_unknown_range_is_refused(tmp_path: Path, values: list[float]) -> None:
    """Integers beyond 16 bits or below 0, and floats, have no brightness that is known."""
    Image.fromarray(np.array([values], np.int32 if isinstance(values[0], int) else np.float32)).save(tmp_path / "odd.tif")
    with pytest.raises(DataError, match="no known range"):
        decode_image(tmp_path / "odd.tif")


def test_a_phones_format_is_named_under_any_name(tmp_path: Path) -> None:
    """HEIC and AVIF are refused as what they are; a pipe is not opened."""
    for brand, name in ((b"heic", "HEIC"), (b"avif", "AVIF")):
        (tmp_path / "photo.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0" * 50)
        with pytest.raises(DataError, match=f"is {name}, which is not supported"):
            decode_image(tmp_path / "photo.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="not a regular file"):
        decode_image(tmp_path / "pipe.jpg")
