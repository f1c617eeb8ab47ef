"""Moving discs: seeded, of the requested size, with known labels."""

from __future__ import annotations

import threading
import time
from itertools import islice, pairwise

import numpy as np
import pytest

from edge_resnet.streaming.sources.synthetic import COLOURS, HOLD, SyntheticSource


def test_the_same_seed_gives_the_same_frames() -> None:
    """Two sources with one seed are bit-identical; with another seed they differ."""
    first, second, other = (
        np.stack([frame.image for frame in SyntheticSource(f"synthetic://?frames=5&seed={seed}")]) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1, 1), (7, 300), (1920, 1080)])
def test_any_size(width: int, height: int) -> None:
    """Frames are (height, width, 3) uint8."""
    (frame,) = SyntheticSource(f"synthetic://?frames=1&width={width}&height={height}")
    assert frame.image.shape == (height, width, 3)
    assert frame.image.dtype == np.uint8


def test_the_image_moves() -> None:
    """No two neighbouring frames are equal, and each is its own array."""
    frames = [frame.image for frame in SyntheticSource("synthetic://?frames=6")]
    assert all(not np.array_equal(left, right) for left, right in pairwise(frames))
    frames[0][:] = 0
    assert frames[1].any()


def test_the_label_is_what_is_shown() -> None:
    """The disc has its label's colour, and the label changes every thirty frames."""
    source = SyntheticSource(f"synthetic://?frames={4 * HOLD}")
    for frame in source:
        disc = np.array(COLOURS[source.label(frame.index)], np.uint8)
        assert (frame.image == disc).all(axis=2).mean() > 0.05
    labels = [source.label(index * HOLD) for index in range(4)]
    assert sorted(labels) == sorted(COLOURS)
    assert source.label(0) == source.label(HOLD - 1)


def test_zero_frames_never_end() -> None:
    """frames=0 never ends; indices count up."""
    frames = islice(SyntheticSource("synthetic://?frames=0&width=8&height=8"), 500)
    assert [frame.index for frame in frames] == list(range(500))


def test_defaults() -> None:
    """Three hundred frames, with increasing times."""
    stamps = [frame.captured_ns for frame in SyntheticSource("synthetic://?width=8&height=8")]
    assert len(stamps) == 300
    assert stamps == sorted(stamps)


@pytest.mark.alone
def test_frames_at_a_rate() -> None:
    """With fps the source is live, and its frames arrive and are stamped at that rate."""
    started = time.monotonic()
    with SyntheticSource("synthetic://?frames=11&width=32&height=32&fps=50") as source:
        stamps = [frame.captured_ns for frame in source]
    assert source.live
    assert not SyntheticSource("synthetic://").live
    np.testing.assert_allclose(np.diff(stamps) / 1e6, 20, atol=0.1)
    assert 0.2 <= time.monotonic() - started < 1


@pytest.mark.parametrize("query", ["fps=0.5", "frames=0"])
@pytest.mark.alone
def test_closing_from_another_thread(query: str) -> None:
    """The iteration ends at once, while it waits for a frame and while it draws."""
    source = SyntheticSource(f"synthetic://?width=32&height=32&{query}")
    reader = threading.Thread(target=lambda: [None for _ in source])
    reader.start()
    time.sleep(0.05)
    started = time.monotonic()
    source.close()
    reader.join(5)
    assert time.monotonic() - started < 0.5
    assert not reader.is_alive()


@pytest.mark.alone
def test_drawing_is_quick() -> None:
    """More than 2,000 small frames per second of processor time, so that a pipeline can be measured; the best of three."""
    rates = []
    for _ in range(3):
        started = time.process_time()
        count = sum(1 for _ in SyntheticSource("synthetic://?frames=400&width=224&height=224"))
        rates.append(count / (time.process_time() - started))
    assert max(rates) > 2000
