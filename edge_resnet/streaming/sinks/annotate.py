"""Draws the answer into a frame: white text on a dark box, legible on any image. Does not know where it is shown."""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.serialise import utc

__all__ = ["Annotator", "drawable"]

#: Searched for in the system's font folders, in this order; Pillow's own font has only ASCII.
_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf")
#: Height of the text as a share of the image's, and its minimum in pixels.
_SHARE, _MIN = 1 / 24, 9
#: Sources whose frame rate is remembered: each image of a folder is a source.
_SOURCES = 64
_INK, _BOX = 255, 32

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Annotator:
    """Draws label and probability, and below them the source's frame rate and the time of capture (UTC).

    The rate is that of the source's last thirty frames drawn, by ``captured_ns``.
    """

    def __init__(self) -> None:
        self._captured: dict[str, deque[int]] = {}

    def draw(self, prediction: Prediction, frame: Frame) -> npt.NDArray[np.uint8]:
        """A copy of the frame's image, (H, W, 3) uint8 BGR, with the answer in its upper left corner."""
        image: npt.NDArray[np.uint8] = frame.image.copy()
        rate = self._rate(prediction)
        best = prediction.answer or prediction.top[0]
        # A label may be long and the image narrow: the number comes first, so that it is never cut off.
        lines = (f"{100 * best.probability:.0f} %  {best.label}", _below(prediction, rate))
        box = _text_box(lines, image.shape[0], image.shape[1])
        image[: box.shape[0], : box.shape[1]] = box[..., None]
        return image

    def _rate(self, prediction: Prediction) -> float | None:
        captured = self._captured.setdefault(prediction.source, deque(maxlen=30))
        if len(self._captured) > _SOURCES:
            del self._captured[next(iter(self._captured))]
        captured.append(prediction.captured_ns)
        span_ns = captured[-1] - captured[0]
        return 1e9 * (len(captured) - 1) / span_ns if span_ns > 0 else None


def drawable(text: str, font: _Font) -> str:
    """The text with characters that are not printable or not in the font escaped, as Python writes them."""
    return "".join(letter if _has(letter, font) else letter.encode("unicode_escape").decode("ascii") for letter in text)


def _below(prediction: Prediction, rate: float | None) -> str:
    time = utc(prediction.wall_ns)
    return "  ".join([*([f"{rate:.1f} fps"] if rate is not None else []), *([f"{time[:10]} {time[11:19]}"] if time else [])])


def _text_box(lines: tuple[str, ...], height: int, width: int) -> npt.NDArray[np.uint8]:
    """The lines as grey levels (h, w), no larger than the image; the text shrinks before anything is cut off."""
    size = max(_MIN, round(height * _SHARE))
    while True:
        font = _font(size)
        texts = [drawable(line, font) for line in lines if line]
        widest = max(font.getlength(text) for text in texts)
        if size == _MIN or widest + size <= width:
            break
        size = max(_MIN, min(size - 1, int(size * width / (widest + size))))
    pad = size // 2
    step = round(1.3 * size)
    box = Image.new("L", (min(width, round(widest) + 2 * pad), min(height, step * len(texts) + pad)), _BOX)
    pen = ImageDraw.Draw(box)
    for row, text in enumerate(texts):
        pen.text((pad, pad // 2 + row * step), text, fill=_INK, font=font)
    return np.asarray(box, np.uint8)


@lru_cache(maxsize=32)
def _font(size: int) -> _Font:
    found = (_installed(name, size) for name in _FONTS)
    return next((font for font in found if font is not None), None) or ImageFont.load_default(size)


def _installed(name: str, size: int) -> _Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _has(letter: str, font: _Font) -> bool:
    if letter == " ":
        return True
    if not letter.isprintable():
        return False
    try:
        return _shape(letter, font) != _shape("\uffff", font)
    except (UnicodeError, OSError):
        return False


def _shape(letter: str, font: _Font) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
