"""resampling.py: summed in integers, its weights give exactly Pillow's pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.records import Interpolation, Preprocess
from edge_resnet.images.preprocess import Axis, is_down_first, plan_crop, preprocess_bgr
from edge_resnet.runtime.tensorrt.resampling import FRACTION_BITS, Weights, resampling_weights

Pixels = npt.NDArray[np.uint8]
PILLOWS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
each_filter = pytest.mark.parametrize("method", list(PILLOWS))


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def summed(values: Pixels, weights: Weights) -> Pixels:
    """Resample the first axis in integers wide enough for any sum; no sum may need more than 32 bits."""
    first, count, fixed = weights.table[0], weights.table[1], weights.table[2:].astype(np.int64)
    part = values[weights.low : weights.high].astype(np.int64)
    rows = []
    for pixel in range(weights.table.shape[1]):
        taps = part[first[pixel] : first[pixel] + count[pixel]]
        sums = np.tensordot(fixed[: count[pixel], pixel], taps, 1) + (1 << (FRACTION_BITS - 1))
        assert np.abs(sums).max() < 1 << 31
        rows.append(np.clip(sums >> FRACTION_BITS, 0, 255))
    return np.array(rows, np.uint8)


def both_axes(frame: Pixels, down: Weights, across: Weights, *, turned: bool = False) -> Pixels:
    if turned:
        return summed(summed(frame, down).transpose(1, 0, 2), across).transpose(1, 0, 2)
    return summed(summed(frame.transpose(1, 0, 2), across).transpose(1, 0, 2), down)


def whole(source: int, pixels: int, method: Interpolation) -> Weights:
    return resampling_weights(Axis(0, source, 0.0, float(source), pixels, 0), pixels, method)


def planned(size: tuple[int, int], spec: Preprocess) -> tuple[Weights, Weights]:
    down, across = plan_crop(*size, spec)
    return resampling_weights(down, spec.crop, spec.interpolation), resampling_weights(across, spec.crop, spec.interpolation)


@each_filter
@settings(max_examples=80)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.integers(0, 99))
def test_one_axis_of_a_whole_image_is_pillows(method: Interpolation, source: int, other: int, pixels: int, seed: int) -> None:
    """Any length becomes any other length as in Pillow, across and down, larger or smaller."""
    image = noise(source, 3 + other % 5, seed)
    image = np.where(image > 127, 255, 0).astype(np.uint8) if seed % 2 else image
    expected = Image.fromarray(image).resize((image.shape[1], pixels), PILLOWS[method])
    np.testing.assert_array_equal(summed(image, whole(source, pixels, method)), np.asarray(expected))
    turned = np.ascontiguousarray(image.transpose(1, 0, 2))
    expected = Image.fromarray(turned).resize((pixels, image.shape[1]), PILLOWS[method])
    np.testing.assert_array_equal(summed(image, whole(source, pixels, method)).transpose(1, 0, 2), np.asarray(expected))


@each_filter
@settings(max_examples=80)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 48), st.integers(0, 48), st.integers(0, 99))
def test_any_frame_and_crop_is_preprocessings(
    method: Interpolation, height: int, width: int, crop: int, extra: int, seed: int
) -> None:
    """The planned crop of any image has the same bytes as preprocess_bgr, also for black-and-white noise."""
    assume(max(height, width) / min(height, width) < 60)
    frame, spec = noise(height, width, seed), Preprocess(crop + extra, crop, method)
    if seed % 2:
        frame = np.where(frame > 127, 255, 0).astype(np.uint8)
    down, across = planned((height, width), spec)
    turned = is_down_first(height, width, spec)
    np.testing.assert_array_equal(both_axes(frame, down, across, turned=turned)[..., ::-1], preprocess_bgr(frame, spec))


@each_filter
@settings(max_examples=60)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 224), st.integers(0, 200))
def test_the_table_stays_within_the_source(method: Interpolation, height: int, width: int, crop: int, extra: int) -> None:
    """Indices lie within low and high, which lie within the image and are both used; weights sum to one."""
    assume(max(height, width) / min(height, width) < 500)
    spec = Preprocess(crop + extra, crop, method)
    for (low, high, table), source in zip(planned((height, width), spec), (height, width), strict=True):
        first, count, fixed = table[0], table[1], table[2:]
        assert table.dtype == np.int32
        assert table.flags.c_contiguous
        assert table.shape[1] == crop
        assert 0 <= low < high <= source
        assert first[0] == 0
        assert (first + count).max() == high - low
        # This lets a block of threads fetch one run of values for neighbouring pixels.
        assert (np.diff(first) >= 0).all()
        assert (np.diff(first + count) >= 0).all()
        assert method == "bicubic" or (fixed >= 0).all()
        # The largest sum of 8-bit pixels fits in 31 bits, the smallest too.
        assert int(np.abs(fixed).sum(axis=0, dtype=np.int64).max()) * 255 + (1 << FRACTION_BITS) < 1 << 31
        assert (fixed[np.arange(len(fixed))[:, None] >= count] == 0).all()
        assert np.abs(fixed.sum(axis=0, dtype=np.int64) - (1 << FRACTION_BITS)).max() <= len(fixed)


@pytest.mark.parametrize("case", [(78, 31, 32, 32), (153, 381, 37, 2), (303, 9, 38, 2), (1148, 1496, 92, 34), (900, 7, 64, 8)])
def test_the_passes_keep_their_order_even_if_pillow_would_reverse_it(case: tuple[int, int, int, int]) -> None:
    """Preprocessing resizes across first even if the height shrinks far more than the width, with every Pillow."""
    height, width, resize, crop = case
    frame, spec = noise(height, width), Preprocess(resize=resize, crop=crop)
    down, across = (resampling_weights(axis, crop) for axis in plan_crop(height, width, spec))
    np.testing.assert_array_equal(both_axes(frame, down, across)[..., ::-1], preprocess_bgr(frame, spec))


def test_what_is_kept_has_weights_of_one() -> None:
    """A frame of exactly the crop's size is unchanged, and only the crop of a larger one is used."""
    spec = Preprocess(resize=32, crop=32)
    for axis in plan_crop(32, 32, spec):
        assert (resampling_weights(axis, 32).table[2] == 1 << FRACTION_BITS).all()
    down, across = (resampling_weights(axis, 32) for axis in plan_crop(32, 40, spec))
    assert (across.low, across.high) == (4, 36)
    assert (down.low, down.high) == (0, 32)


@pytest.mark.parametrize("size", [(2160, 3840), (1080, 1920), (480, 640), (333, 500)])
def test_a_camera_frame_uses_little_more_than_the_crop(size: tuple[int, int]) -> None:
    """For the usual sizes, only the box of the crop and the filter's reach beyond it are read."""
    scale = min(size) / 256
    for axis in plan_crop(*size, Preprocess()):
        weights = resampling_weights(axis, 224)
        assert weights.high - weights.low <= 224 * scale + 2 * scale + 2
