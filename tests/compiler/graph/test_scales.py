"""scales.py: laws of the scales on arrays from Hypothesis, and what clipping gains where it can gain."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edge_resnet.compiler.graph.scales import MIN_SCALE, channel_amax, weight_scales

Floats = npt.NDArray[np.float32]
#: Any float32 that a squared sum would survive, denormals included, and what weights look like.
WEIGHTS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-(2.0**99), 2.0**99, width=32) | st.floats(-2, 2, width=32),
)
LIMITS = st.sampled_from([127, 63])


def column(scales: Floats, weight: Floats) -> npt.NDArray[np.float64]:
    return scales.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))


def squared_error(weight: Floats, scales: Floats, limit: int) -> npt.NDArray[np.float64]:
    """Per channel, sum((w - q(w))²) in float64."""
    step = column(scales, weight)
    lost = weight - np.clip(np.rint(weight / step), -limit, limit) * step
    return (lost.reshape(len(weight), -1) ** 2).sum(axis=1)


def whole(weight: Floats, limit: int) -> Floats:
    """The scales without clipping."""
    amax = channel_amax(weight) / limit
    return np.where(amax >= MIN_SCALE, amax, 1).astype(np.float32)


def normal(channels: int, size: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((channels, size, 3, 3)).astype(np.float32)


@given(WEIGHTS, LIMITS)
@settings(max_examples=100)
def test_it_is_never_worse_than_the_largest_weight(weight: Floats, limit: int) -> None:
    """The squared error of every channel is at most what amax / limit would lose, up to rounding."""
    found = squared_error(weight, weight_scales(weight, limit), limit)
    assert (found <= squared_error(weight, whole(weight, limit), limit) * (1 + 1e-5)).all()


@given(WEIGHTS, LIMITS)
def test_scales_are_one_per_channel_and_usable(weight: Floats, limit: int) -> None:
    """(O,) float32, no denormal among them, between half and the whole of amax / limit where that is not denormal itself."""
    scales, unclipped = weight_scales(weight, limit), whole(weight, limit)
    assert scales.shape == weight.shape[:1]
    assert scales.dtype == np.float32
    assert (scales >= MIN_SCALE).all()
    assert (scales <= unclipped).all()
    assert (scales >= unclipped * np.float32(0.4999)).all()


@given(WEIGHTS, LIMITS)
def test_what_is_not_clipped_comes_back_within_half_a_step(weight: Floats, limit: int) -> None:
    """|w - q(w)| <= scale / 2 for every weight inside its channel's range."""
    step = column(weight_scales(weight, limit), weight)
    inside = np.abs(weight) <= step * limit
    lost = np.abs(weight - np.rint(weight / step) * step)
    assert (lost[inside] <= np.broadcast_to(step * 0.50001, weight.shape)[inside]).all()


@given(WEIGHTS, st.integers(-8, 8))
def test_scales_follow_their_channel_alone(weight: Floats, exponent: int) -> None:
    """A channel times a power of two has its scale times that power; the other channels' scales stay."""
    scaled = weight.copy()
    scaled[0] *= 2.0**exponent
    before, after = weight_scales(weight), weight_scales(scaled)
    assert np.array_equal(before[1:], after[1:])
    if np.abs(weight[0]).max() > 1e-30:
        assert after[0] == before[0] * np.float32(2.0**exponent)


@pytest.mark.parametrize("limit", [127, 63])
def test_the_scale_is_the_best_of_the_grid(limit: int) -> None:
    """Written out in a loop over every share from 1.0 down to 0.5, no channel has a better one."""
    weight = normal(12, 40)
    tried = [
        squared_error(weight, (whole(weight, limit) * np.float32(share)).astype(np.float32), limit)
        for share in np.linspace(1, 0.5, 51)
    ]
    found = squared_error(weight, weight_scales(weight, limit), limit)
    assert found == pytest.approx(np.min(tried, axis=0), rel=1e-4)


def test_a_wide_channel_is_clipped() -> None:
    """Thousands of normal weights lose less by clipping the largest of them."""
    weight = normal(8, 512)
    scales, unclipped = weight_scales(weight), whole(weight, 127)
    assert (scales / unclipped).mean() < 0.99
    assert squared_error(weight, scales, 127).sum() < 0.98 * squared_error(weight, unclipped, 127).sum()


def test_integers_of_the_grid_are_kept() -> None:
    """Where every weight is representable there is nothing to gain, and nothing is clipped."""
    grid = np.arange(-127, 128, dtype=np.float32).reshape(1, -1) / 64
    assert np.array_equal(weight_scales(grid), whole(grid, 127))


def test_two_weights_are_not_clipped() -> None:
    """Where clipping cannot win, the largest weight is representable."""
    weight = np.array([[1.0, -0.3], [0.0, 7.0]], np.float32)
    assert np.array_equal(weight_scales(weight), whole(weight, 127))


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-40, MIN_SCALE * 126])
def test_dead_channels_have_a_scale_of_one(value: float) -> None:
    """Zeros, and weights so small that their scale would be denormal, get 1 and disturb no other channel."""
    weight = normal(3, 4)
    expected = weight_scales(weight)
    weight[1] = value
    assert np.array_equal(weight_scales(weight), np.where([False, True, False], 1, expected))


def test_a_scale_at_the_edge_is_not_made_denormal() -> None:
    """A channel whose unclipped scale is the smallest allowed keeps it, whatever clipping would gain."""
    weight = normal(1, 512)
    weight *= np.float32(MIN_SCALE * 128 / np.abs(weight).max())
    assert MIN_SCALE <= weight_scales(weight)[0] <= whole(weight, 127)[0]


def test_the_weight_is_left_as_it_is() -> None:
    """Nothing is written to the array, contiguous or not."""
    weight = normal(4, 6)
    kept = weight.copy()
    assert np.array_equal(weight_scales(weight.transpose(1, 0, 2, 3)), weight_scales(kept.transpose(1, 0, 2, 3).copy()))
    assert np.array_equal(weight, kept)


@pytest.mark.alone
def test_the_largest_layer_of_a_resnet_50_takes_less_than_a_second() -> None:
    """512 output channels of 4608 weights, the fastest of three."""
    weight = normal(512, 512)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        weight_scales(weight)
        times.append(time.perf_counter() - started)
    assert min(times) < 1


def test_channel_amax_is_per_output_channel() -> None:
    """(O,): the largest absolute value over all other axes."""
    weight = normal(5, 7)
    assert np.array_equal(channel_amax(weight), np.abs(weight).max(axis=(1, 2, 3)))
