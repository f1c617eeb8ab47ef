"""coverage.py: shares and levels are what a count by hand gives, and the verdict follows the last change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.quantization.coverage import CoverageReport, coverage_report, ranges_now, render, snapshot_counts
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.spec import CalibrationTable, QuantRecipe


def filled(values: npt.NDArray[np.float32]) -> AbsHistogram:
    """A histogram of these values."""
    histogram = AbsHistogram()
    histogram.add(values)
    return histogram


def report(values: npt.NDArray[np.float32], amax: float, history: dict[int, float]) -> CoverageReport:
    """The report on one tensor."""
    table = CalibrationTable({"t": amax}, (), QuantRecipe(), 1, "", "")
    return coverage_report({"t": filled(values)}, table, {count: {"t": value} for count, value in history.items()})


@given(st.integers(1, 5000))
def test_snapshots_double_and_end_with_all(total: int) -> None:
    """32, 64, 128 … below the total, then the total; rising, without repetition."""
    counts = snapshot_counts(total)
    assert counts[-1] == total
    assert list(counts[:-1]) == [32 * 2**step for step in range(len(counts) - 1)]
    assert list(counts) == sorted(set(counts))


def test_the_clipped_share_is_the_share_above_the_range() -> None:
    """Of 1,000 values spread evenly over 0..1, a tenth lies above 0.9."""
    values = np.linspace(0, 0.999, 1000, dtype=np.float32)
    tensor = report(values, 0.9, {32: 1.0}).tensors[0]
    assert tensor.clipped == pytest.approx(10, abs=0.2)


def test_all_levels_are_used_by_an_even_spread_and_few_by_a_lump() -> None:
    """128 levels for values all over the range; one large value leaves the others two."""
    even = report(np.linspace(0, 1, 5000, dtype=np.float32), 1.0, {32: 1.0}).tensors[0]
    assert even.levels == 128
    lump = np.full(1000, 0.004, np.float32)
    lump[0] = 1.0
    assert report(lump, 1.0, {32: 1.0}).tensors[0].levels <= 3


def test_a_dead_tensor_is_covered() -> None:
    """Zeros alone: nothing clipped, one level."""
    tensor = report(np.zeros(10, np.float32), 1.0, {32: 1.0}).tensors[0]
    assert (tensor.clipped, tensor.levels) == (0.0, 1)


@pytest.mark.parametrize(("last", "enough"), [(1.01, True), (1.2, False)])
def test_the_verdict_follows_the_last_change(last: float, enough: bool) -> None:
    """One per cent from half the pictures to all is enough, a fifth is not; the line says so."""
    found = report(np.ones(10, np.float32), 1.0, {32: 0.5, 64: 1.0, 128: last})
    assert found.enough is enough
    assert found.moved == pytest.approx((last - 1) / last)
    assert render(found).splitlines()[-1].endswith("enough" if enough else "use more")


def test_too_few_pictures_to_tell() -> None:
    """One snapshot shows no change, and is not called enough."""
    found = report(np.ones(10, np.float32), 1.0, {20: 1.0})
    assert not found.enough
    assert "too few" in render(found)


def test_the_table_shows_what_moves_first() -> None:
    """Rows are sorted by the last change, a column per number of pictures."""
    histograms = {name: filled(np.ones(10, np.float32)) for name in ("still", "moves")}
    table = CalibrationTable(dict.fromkeys(histograms, 1.0), (), QuantRecipe(), 1, "", "")
    snapshots = {32: {"still": 1.0, "moves": 0.5}, 64: {"still": 1.0, "moves": 1.0}}
    lines = render(coverage_report(histograms, table, snapshots)).splitlines()
    assert "at 32" in lines[0]
    assert "at 64" in lines[0]
    assert lines[1].startswith("moves")
    assert lines[2].startswith("still")


def test_ranges_are_read_as_the_counts_stand() -> None:
    """By the recipe's method, while counting goes on."""
    histogram = filled(np.full(10, 0.5, np.float32))
    assert ranges_now({"t": histogram}, QuantRecipe(method="max")) == {"t": 0.5}
    histogram.add(np.full(10, 2.0, np.float32))
    assert ranges_now({"t": histogram}, QuantRecipe(method="max")) == {"t": 2.0}
