"""What an image may cost: its pixels and, of a JPEG, its scans are counted before anything is decoded.

Does not know about files or cameras: whoever decodes an image from outside asks here first.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from PIL import Image

from edge_resnet.core.errors import DataError

__all__ = ["MAX_PIXELS", "MAX_SCANS", "count_scans", "refuse_costly"]

#: A decoded image of this size takes 268 MB; a small file can claim any size (a decompression bomb).
MAX_PIXELS = 89_478_485
#: Beyond ``_ALWAYS_PIXELS``, no image of something has so many pixels for a byte of its file; a blank page of a fax may.
_MAX_PIXELS_PER_BYTE = 4000
_ALWAYS_PIXELS = 1 << 24
#: A progressive JPEG has about ten scans, and each is a pass over all pixels: with 40,000 scans 5 MB take a core for minutes.
#: The limit is libtiff's for a JPEG inside a TIFF.
MAX_SCANS = 100
#: More than ``MAX_PIXELS`` need at the best quality.
_MAX_JPEG_BYTES = 256 << 20

_SOI, _TEM, _EOI, _SOS = 0xD8, 0x01, 0xD9, 0xDA
_RESTARTS = range(0xD0, 0xD8)
#: The next marker: what is neither a stuffed zero nor a fill byte. In a scan's data, restart markers are skipped, too.
_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


def refuse_costly(image: Image.Image, file: BinaryIO, max_pixels: int = MAX_PIXELS) -> None:
    """Raise DataError, without the image's name, if decoding ``image`` would take too long or too much memory.

    ``image``: opened, so that its header is known, and not decoded. ``file``: what it was opened from; its position is kept.
    """
    if image.width * image.height > max_pixels:
        raise DataError(
            f"is too large: it claims {image.width}x{image.height} pixels",
            hint=f"resize it to at most {max_pixels // 1_000_000} million pixels",
        )
    position = file.tell()
    pixels, size = image.width * image.height, file.seek(0, os.SEEK_END)
    file.seek(position)
    if pixels > max(_ALWAYS_PIXELS, _MAX_PIXELS_PER_BYTE * size):
        raise DataError(f"is no usual image: {size} bytes claim {image.width}x{image.height} pixels", hint="save it again")
    if image.format not in ("JPEG", "MPO"):
        return
    file.seek(0)
    data = file.read(_MAX_JPEG_BYTES + 1)
    file.seek(position)
    if len(data) > _MAX_JPEG_BYTES:
        raise DataError(f"is too large: a JPEG of more than {_MAX_JPEG_BYTES >> 20} MiB", hint="save it again, as a smaller file")
    # The plain count is no less than the number of scans, and a hundred times as fast to find.
    if data.count(b"\xff\xda") > MAX_SCANS and (scans := count_scans(data)) > MAX_SCANS:
        raise DataError(f"is no usual JPEG: it has {scans} scans, and {MAX_SCANS} are the limit", hint="save it again")


def count_scans(data: bytes) -> int:
    """The number of scans of the first image in ``data``, a JPEG (ITU-T T.81, annex B): those of a thumbnail do not count."""
    scans, at, pattern = 0, 0, _MARKER
    while (found := pattern.search(data, at)) is not None:
        marker, at, pattern = found.group(1)[0], found.end(), _MARKER
        if marker == _EOI:
            break
        if marker in (_SOI, _TEM) or marker in _RESTARTS:
            continue
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
        if marker == _SOS:
            scans += 1
            pattern = _MARKER_IN_SCAN
    return scans
