"""coverage.py: shares and levels equal a direct count, and the verdict follows the last change."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.artifact.folder import write_json
from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.core.records import QuantRecipe
from edge_resnet.quantization.coverage import CoverageReport, coverage_report, ranges_now, render, snapshot_counts
from edge_resnet.quantization.histogram import AbsHistogram


def filled(values: npt.NDArray[np.float32]) -> AbsHistogram:
    """A histogram of these values."""
    histogram = AbsHistogram()
    histogram.add(values)
    return histogram


def report(values: npt.NDArray[np.float32], amax: float, history: dict[int, float]) -> CoverageReport:
    """The report on one tensor."""
    table = CalibrationTable({"t": amax}, (), QuantRecipe(), 1, "", "")
    return coverage_report({"t": filled(values)}, table, {count: {"t": value} for count, value in history.items()})


def several(changes: list[float]) -> CoverageReport:
    """The report on tensors whose ranges change by these shares from 64 to 128 images."""
    histograms = {f"t{place}": filled(np.ones(10, np.float32)) for place in range(len(changes))}
    table = CalibrationTable(dict.fromkeys(histograms, 1.0), (), QuantRecipe(), 1, "", "")
    before = {f"t{place}": 1 - change for place, change in enumerate(changes)}
    return coverage_report(histograms, table, {64: before, 128: dict.fromkeys(before, 1.0)})


@given(st.integers(1, 5000))
def test_snapshots_double_and_end_with_all(total: int) -> None:
    """32, 64, 128 … then the total, which is at least half as many again: a last step of a few images would show nothing."""
    counts = snapshot_counts(total)
    assert counts[-1] == total
    assert list(counts[:-1]) == [32 * 2**step for step in range(len(counts) - 1)]
    assert all(1.5 * before <= after <= 3 * before for before, after in pairwise(counts))


@pytest.mark.parametrize(
    ("total", "counts"),
    [(32, (32,)), (47, (47,)), (48, (32, 48)), (512, (32, 64, 128, 256, 512)), (520, (32, 64, 128, 256, 520))],
)
def test_snapshots_of_some_totals(total: int, counts: tuple[int, ...]) -> None:
    """520 images are compared with 256 of them, not with 512."""
    assert snapshot_counts(total) == counts


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


@given(share=st.floats(0.05, 1))
def test_the_steps_reach_up_to_99_percent_of_the_values(share: float) -> None:
    """Uniform values up to ``share`` of the range leave the steps beyond it unused; values beyond the range use at most 127."""
    values = np.linspace(0, 1, 5000, dtype=np.float32)
    assert report(values, 1 / share, {32: 1.0}).tensors[0].steps == pytest.approx(127 * 0.99 * share, rel=0.01)
    assert report(values, 0.5, {32: 1.0}).tensors[0].steps == 127


def test_a_dead_tensor_is_covered() -> None:
    """Zeros alone: nothing clipped, one level, no step."""
    tensor = report(np.zeros(10, np.float32), 1.0, {32: 1.0}).tensors[0]
    assert (tensor.clipped, tensor.levels, tensor.steps) == (0.0, 1, 0.0)


@pytest.mark.parametrize(("last", "enough"), [(1.01, True), (1.2, False)])
def test_the_verdict_follows_the_last_change(last: float, enough: bool) -> None:
    """A change of 1 % from half the images to all is enough, one of a fifth is not; the verdict says so."""
    found = report(np.ones(10, np.float32), 1.0, {32: 0.5, 64: 1.0, 128: last})
    assert found.enough is enough
    assert found.moved == pytest.approx((last - 1) / last)
    assert ("still changing, use more" in render(found)) is not enough
    assert render(found).endswith("enough") is enough


def test_a_tenth_of_the_tensors_may_not_hide_behind_the_median() -> None:
    """Nine stable tensors do not make the others' ranges right; one of twenty may change, as rare values do."""
    assert several([0.0] * 19 + [0.5]).enough
    found = several([0.0] * 16 + [0.5] * 4)
    assert (found.moved, found.enough) == (0.0, False)
    assert found.most == pytest.approx(0.5)


@given(st.lists(st.floats(0, 0.9), min_size=1, max_size=30))
def test_more_movement_is_never_called_enough_for_less(changes: list[float]) -> None:
    """If ranges that change twice as much are stable, so are these."""
    smaller = several([change / 2 for change in changes])
    assert smaller.moved <= several(changes).moved
    assert smaller.enough or not several(changes).enough


def test_the_report_survives_json(tmp_path: Path) -> None:
    """The report contains only figures and names, so it can be written and read."""
    found = several([0.1, 0.2])
    write_json(tmp_path / "report.json", found)
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read["counts"] == [64, 128]
    assert [tensor["tensor"] for tensor in read["tensors"]] == ["t0", "t1"]
    assert read["most"] == found.most
    assert {len(line) for line in render(found).splitlines()[:-1]} == {len(render(found).splitlines()[0])}, "columns align"


def test_no_tensor_and_no_snapshot_do_not_raise() -> None:
    """An empty report still has its verdict."""
    table = CalibrationTable({}, (), QuantRecipe(), 1, "", "")
    assert "too few" in render(coverage_report({}, table, {}))
    assert "from 32 to 64" in render(coverage_report({}, table, {32: {}, 64: {}}))


def test_too_few_images_to_tell() -> None:
    """One snapshot shows no change and does not count as enough."""
    found = report(np.ones(10, np.float32), 1.0, {20: 1.0})
    assert not found.enough
    assert "too few" in render(found)


def test_the_table_shows_what_moves_first() -> None:
    """Rows are sorted by the last change, a column per number of images."""
    histograms = {name: filled(np.ones(10, np.float32)) for name in ("still", "moves")}
    table = CalibrationTable(dict.fromkeys(histograms, 1.0), (), QuantRecipe(), 1, "", "")
    snapshots = {32: {"still": 1.0, "moves": 0.5}, 64: {"still": 1.0, "moves": 1.0}}
    lines = render(coverage_report(histograms, table, snapshots)).splitlines()
    assert "at 32" in lines[0]
    assert "at 64" in lines[0]
    assert lines[1].startswith("moves")
    assert lines[2].startswith("still")


def test_ranges_are_read_as_the_counts_stand() -> None:
    """Ranges are read by the recipe's method while counting continues."""
    histogram = filled(np.full(10, 0.5, np.float32))
    assert ranges_now({"t": histogram}, QuantRecipe(method="max")) == {"t": 0.5}
    histogram.add(np.full(10, 2.0, np.float32))
    assert ranges_now({"t": histogram}, QuantRecipe(method="max")) == {"t": 2.0}
