"""Moving discs: seeded, of the size asked for, with known labels."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from edge_resnet.sources.synthetic import COLOURS, HOLD, SyntheticSource


def test_the_same_seed_gives_the_same_frames() -> None:
    """Two sources of one seed are equal to the bit; another seed's differ."""
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


def test_the_picture_moves() -> None:
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
    """frames=0 goes on; the indices count."""
    frames = islice(SyntheticSource("synthetic://?frames=0&width=8&height=8"), 500)
    assert [frame.index for frame in frames] == list(range(500))


def test_defaults() -> None:
    """Three hundred frames, stamped in order."""
    stamps = [frame.captured_ns for frame in SyntheticSource("synthetic://?width=8&height=8")]
    assert len(stamps) == 300
    assert stamps == sorted(stamps)
