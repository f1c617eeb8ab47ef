"""Frames → JPEG → multipart/x-mixed-replace, only while a client is connected. Does not know about predictions."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.streaming.web.latest import LatestFrames, Newest
from edge_resnet.streaming.web.streams import pause

__all__ = ["MEDIA_TYPE", "JpegStream", "encode"]

MEDIA_TYPE = "multipart/x-mixed-replace; boundary=frame"
_SIDE = 960
_QUALITY = 75
_EVERY_S = 0.1
#: Seconds after which a frame is sent again if there is no newer one: so a client that is gone is noticed.
_AGAIN_S = 5.0


def encode(image: npt.NDArray[np.uint8]) -> bytes:
    """JPEG of (H, W, 3) uint8 BGR, scaled down to at most 960 pixels a side."""
    height, width = image.shape[:2]
    packed = np.ascontiguousarray(image)
    pixels = Image.frombuffer("RGB", (width, height), packed, "raw", "BGR", 0, 1)
    pixels.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


class JpegStream:
    """Encodes a source's newest frame at most ten times a second for all its clients. Used on the server's thread."""

    def __init__(self, latest: LatestFrames, pool: Executor) -> None:
        self._latest = latest
        self._pool = pool
        self._encoded: dict[int, _Encoded] = {}

    async def parts(self, index: int, wake: asyncio.Event) -> AsyncGenerator[bytes, None]:
        """Parts of a multipart stream: the newest frame each time; those between are skipped."""
        # Browsers show a part when the boundary after it has arrived, so each part ends with that.
        yield b"--frame\r\n"
        sent, sent_s = 0, 0.0
        while True:
            newest = self._latest.newest(index)
            if newest and (newest.number > sent or time.monotonic() - sent_s > _AGAIN_S):
                encoded = self._encode(index, newest)
                jpeg = await asyncio.shield(encoded.jpeg)
                if encoded.number > sent or time.monotonic() - sent_s > _AGAIN_S:
                    sent, sent_s = encoded.number, time.monotonic()
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                    yield head + jpeg + b"\r\n--frame\r\n"
            await pause(wake, _EVERY_S)
            yield b""

    def _encode(self, index: int, newest: Newest) -> _Encoded:
        """The source's newest JPEG; starts to encode ``newest`` if that one is old enough."""
        encoded, now = self._encoded.get(index), time.monotonic()
        if encoded is None or (newest.number > encoded.number and now - encoded.started_s >= 0.9 * _EVERY_S):
            jpeg = asyncio.get_running_loop().run_in_executor(self._pool, encode, newest.frame.image)
            encoded = self._encoded[index] = _Encoded(newest.number, now, jpeg)
        return encoded


@dataclass(frozen=True)
class _Encoded:
    """A frame's number, when its encoding started, and the JPEG."""

    number: int
    started_s: float
    jpeg: asyncio.Future[bytes]
