"""The answer drawn into a frame: legible on any background, inside any image, in any language."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont
from sinksamples import Seen, predicted, with_image

from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sinks.annotate import Annotator, drawable


def _frame(kind: str, height: int = 240, width: int = 320) -> Frame:
    if kind == "noise":
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    else:
        image = np.full((height, width, 3), {"black": 0, "grey": 128, "white": 255}[kind], np.uint8)
    return Frame(image, 0, 0, "camera:0")


def _box(image: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The smallest part, from the upper left corner, outside of which nothing changed."""
    rows, columns = np.nonzero((image != before).any(axis=-1))
    return image[: rows.max() + 1, : columns.max() + 1]


@pytest.mark.parametrize("kind", ["black", "grey", "white", "noise"])
def test_letters_stand_out(kind: str) -> None:
    """The same box of light text on a dark ground over any background; the rest of the image is unchanged."""
    frame = _frame(kind)
    image = Annotator().draw(predicted(), frame)
    box = _box(image, frame.image)
    assert box.min() >= 30
    assert (box <= 40).mean() > 0.5
    assert 0.02 < (box >= 200).mean() < 0.5
    reference = _frame("black")
    np.testing.assert_array_equal(box, Annotator().draw(predicted(), reference)[: box.shape[0], : box.shape[1]])
    assert box.shape[0] < 0.3 * image.shape[0]


def test_the_frame_is_not_touched() -> None:
    """A frame is shared, so the answer is drawn into a copy."""
    frame = with_image()
    before = frame.image.copy()
    image = Annotator().draw(predicted(), frame)
    np.testing.assert_array_equal(frame.image, before)
    assert not np.array_equal(image, before)


def test_letters_grow_with_the_image() -> None:
    """In an image of twice the height the box is about twice as high."""
    heights = []
    for height in (480, 960):
        frame = _frame("white", height, 2 * height)
        heights.append(_box(Annotator().draw(predicted(), frame), frame.image).shape[0])
    assert 1.9 < heights[1] / heights[0] < 2.1


@settings(max_examples=40)
@given(st.integers(1, 80), st.integers(1, 80), st.text(max_size=60), st.floats())
def test_any_label_in_any_image(height: int, width: int, label: str, probability: float) -> None:
    """For any image size and any label the result has the size of the image."""
    frame = with_image(height=height, width=width)
    image = Annotator().draw(predicted(0, Seen(label, probability)), frame)
    assert image.shape == frame.image.shape
    assert image.dtype == np.uint8


def test_a_long_label_shrinks_before_it_is_cut() -> None:
    """A label twice as wide as the image is drawn in smaller letters, with its end."""
    frame = _frame("white", 480, 640)
    first, second = (
        Annotator().draw(predicted(0, Seen(f"{'a very long name of a thing, ' * 3}{end}")), frame) for end in ("ab", "xy")
    )
    assert not np.array_equal(first, second)


def test_the_rate_is_drawn() -> None:
    """Thirty frames per second look different from fifteen; frames of another source change nothing."""
    images = {}
    for per_second in (15.0, 30.0):
        annotator = Annotator()
        for frame in range(40):
            annotator.draw(predicted(frame, Seen(source="other"), per_second=7.0), with_image())
            shown = replace(predicted(frame, per_second=per_second), wall_ns=0)
            images[per_second] = annotator.draw(shown, _frame("black"))
    assert not np.array_equal(images[15.0], images[30.0])
    alone = Annotator()
    for frame in range(40):
        last = alone.draw(replace(predicted(frame), wall_ns=0), _frame("black"))
    np.testing.assert_array_equal(last, images[30.0])


def test_what_a_font_lacks_is_escaped() -> None:
    """Pillow's own font has only ASCII; other and unprintable characters are escaped as Python does."""
    font = ImageFont.load_default(20)
    assert drawable("plain text, 75 %", font) == "plain text, 75 %"
    assert drawable("ねこ\n\ud800", font) == "\\u306d\\u3053\\n\\ud800"
