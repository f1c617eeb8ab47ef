"""Comparisons of two files: records of bench with scripted latencies, and evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from measurement.bench.scripted import HandClock, Scripted
from reports import accuracy, answers, evaluation

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.device.power import PowerReading
from edge_resnet.measurement.accuracy import write_evaluation
from edge_resnet.measurement.bench.bench import bench
from edge_resnet.measurement.bench.result import BenchResult, write_results
from edge_resnet.measurement.bench.rules import BenchOptions
from edge_resnet.measurement.compare.compare import compare_files
from edge_resnet.measurement.compare.deltas import Comparison, top1_delta

Saved = Callable[..., Path]


@pytest.fixture(scope="module")
def measure(tiny_artifacts: dict[str, Artifact]) -> Callable[[float], BenchResult]:
    """Makes a result with latencies around so many milliseconds and a spread of a few percent."""

    def measured(milliseconds: float) -> BenchResult:
        clock = HandClock()
        spread = milliseconds * (1 + 0.02 * np.random.default_rng(0).standard_normal(997))
        options = BenchOptions(seconds=0.2, min_queries=400, starts=0, frame=(64, 48), power=False)
        found = bench(tiny_artifacts["int8"], options, network=Scripted(clock, cycle(spread.tolist())), clock=clock)
        return replace(found, conditions=replace(found.conditions, others_share=0.0))

    return measured


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Writes results, or an evaluation with these results per image, to a new file."""
    numbers = iter(range(99))

    def write(*results: BenchResult | str, **changes: Any) -> Path:
        path = tmp_path / f"{next(numbers)}.json"
        if isinstance(results[0], str):
            kept = changes.pop("kept", True)
            found = evaluation(results[0], **changes)
            write_evaluation(path, found if kept else replace(found, right=""))
        else:
            write_results(path, results)  # type: ignore[arg-type]  # all are of one type
        return path

    return write


def judged(found: Comparison) -> str:
    return found.deltas[0].verdict


@pytest.mark.parametrize(("milliseconds", "verdict"), [(10.0, "same"), (10.3, "same"), (13.0, "worse"), (8.0, "better")])
def test_a_latency_is_judged(measure: Callable[[float], BenchResult], saved: Saved, milliseconds: float, verdict: str) -> None:
    """Within the tolerance it is the same; beyond it, and beyond noise, better or worse."""
    found = compare_files(saved(measure(10.0)), saved(measure(milliseconds)))
    assert judged(found) == verdict
    assert found.regressed is (verdict == "worse")
    assert found.deltas[0].change == pytest.approx(10 * (milliseconds - 10), abs=0.5)


def test_a_rate_is_judged_the_other_way(measure: Callable[[float], BenchResult], saved: Saved) -> None:
    """More images per second are better."""
    old = measure(10.0)
    rate = replace(old.metric, name="throughput_per_s", value=100.0, ci95=(99.0, 101.0))
    offline = replace(old, scenario="offline", metric=rate)
    more = replace(offline, metric=replace(rate, value=130.0, ci95=(128.0, 132.0)))
    assert judged(compare_files(saved(offline), saved(more))) == "better"
    assert judged(compare_files(saved(more), saved(offline))) == "worse"


def test_noise_is_not_a_regression(measure: Callable[[float], BenchResult], saved: Saved) -> None:
    """Ten percent slower, but with overlapping intervals: unclear, and not a regression."""
    old = measure(10.0)
    wide = replace(old, metric=replace(old.metric, value=11.0, ci95=(9.5, 12.5)))
    found = compare_files(saved(replace(old, metric=replace(old.metric, value=10.0, ci95=(9.4, 10.9)))), saved(wide))
    assert (judged(found), found.regressed) == ("unclear", False)


def test_a_busy_machine_proves_nothing(measure: Callable[[float], BenchResult], saved: Saved) -> None:
    """Where other programs used the cores, a difference may be their effect: unclear, and not a regression."""
    old, new = measure(10.0), measure(20.0)
    busy = replace(new, conditions=replace(new.conditions, others_share=0.3))
    for pair in ((old, busy), (busy, old)):
        found = compare_files(*(saved(result) for result in pair))
        assert (judged(found), found.regressed) == ("unclear", False)


@given(st.floats(1, 100), st.floats(0, 20), st.floats(1, 100), st.floats(0, 20), st.floats(0, 50))
def test_nothing_is_worse_both_ways(
    tmp_path_factory: pytest.TempPathFactory,
    measure: Callable[[float], BenchResult],
    old: float,
    old_half: float,
    new: float,
    new_half: float,
    tolerance: float,
) -> None:
    """What is worse in one direction is not worse in the other; compared with itself everything is the same."""
    folder, base = tmp_path_factory.mktemp("pair"), _base(measure)
    paths = []
    for name, value, half in (("a", old, old_half), ("b", new, new_half)):
        metric = replace(base.metric, value=value, ci95=(value - half, value + half))
        paths.append(folder / name)
        write_results(paths[-1], [replace(base, metric=metric)])
    there, back = (compare_files(*pair, tolerance_percent=tolerance) for pair in (paths, paths[::-1]))
    assert not (there.regressed and back.regressed)
    assert judged(compare_files(paths[0], paths[0], tolerance_percent=tolerance)) == "same"


_kept: list[BenchResult] = []


def _base(measure: Callable[[float], BenchResult]) -> BenchResult:
    if not _kept:
        _kept.append(measure(10.0))
    return _kept[0]


@pytest.mark.parametrize("field", ["cpu", "gpu", "power_mode", "usable_cores"])
def test_another_machine_is_refused(measure: Callable[[float], BenchResult], saved: Saved, field: str) -> None:
    """Unless --force is given; then the difference is noted."""
    old = measure(10.0)
    other = replace(old, device=replace(old.device, **{field: 99 if field == "usable_cores" else "another"}))
    with pytest.raises(ConfigError, match="different machines") as caught:
        compare_files(saved(old), saved(other))
    assert "--force" in caught.value.hint
    notes = compare_files(saved(old), saved(other), force=True).notes
    assert any((field.replace("_", " ") in note and "another" in note) or "99" in note for note in notes)


def test_what_else_differs_is_noted(measure: Callable[[float], BenchResult], saved: Saved) -> None:
    """Precision, and the warnings of either measurement."""
    old = measure(10.0)
    found = compare_files(saved(old), saved(replace(old, precision="fp32", warnings=("the machine was busy",))))
    assert {"precision was int8, is fp32", "the new one: the machine was busy"} <= set(found.notes)


def reading(source: str) -> PowerReading:
    return PowerReading(
        energy_mj=900.0, mean_w=9.0, peak_w=9.0, seconds=0.1, samples=5, covers="module", source=source, others=(),
        temperatures=None, gpu_clock=None, cpu_clock=None, throttling=(), power_mode=None, absent={}, notes=(),
        sampling_cpu_s=0.0,
    )  # fmt: skip


def test_energy_is_compared_where_both_have_it(measure: Callable[[float], BenchResult], saved: Saved) -> None:
    """From the same meter it is shown and not judged; from another meter it is noted; without energy there is nothing."""
    old = replace(measure(10.0), power=reading("INA3221 VDD_IN"), mj_per_image=40.0)
    found = compare_files(saved(old), saved(replace(old, mj_per_image=50.0)))
    (energy,) = [delta for delta in found.deltas if delta.unit == "mJ"]
    assert (energy.name, energy.old, energy.new, energy.change) == ("single-stream energy per image", 40, 50, pytest.approx(25))
    assert (energy.verdict, found.regressed) == ("same", False)
    other = replace(old, power=reading("INA238 VIN"))
    for new, noted in (
        (other, True),
        (replace(old, mj_per_image=None), False),
        (replace(old, power=None, mj_per_image=None), False),
    ):
        found = compare_files(saved(old), saved(new))
        assert not any(delta.unit == "mJ" for delta in found.deltas)
        assert any("energy was of INA3221 VDD_IN module, is of INA238 VIN module" in note for note in found.notes) is noted


def test_scenarios_are_paired(measure: Callable[[float], BenchResult], saved: Saved) -> None:
    """Each with the same scenario; files with nothing in common are refused."""
    old = measure(10.0)
    multi = replace(old, scenario="multi-stream")
    found = compare_files(saved(old, multi), saved(multi))
    assert {delta.name.split()[0] for delta in found.deltas} == {"multi-stream"}
    with pytest.raises(DataError, match="nothing in common"):
        compare_files(saved(old), saved(multi))
    with pytest.raises(DataError, match="nothing in common"):
        compare_files(saved(old), saved(replace(old, batch=8)))


@pytest.mark.parametrize(
    ("new", "verdict", "between"),
    [
        (answers(375, 500), "same", (-0.8, 0.8)),
        (answers(373, 500), "same", None),
        (answers(369, 500), "worse", (-2.6, -0.4)),
        (answers(381, 500), "better", (0.4, 2.6)),
        (answers(371, 500, shift=20), "unclear", None),
        (answers(370, 500), "unclear", (-2.3, -0.2)),
    ],
    ids=["all the same", "within the tolerance", "six lost", "six won", "many lost and won", "five lost may be chance"],
)
def test_an_accuracy_is_judged_image_by_image(saved: Saved, new: str, verdict: str, between: tuple[float, float] | None) -> None:
    """Six of 500 images lost and none won is significant, though the two intervals overlap; 24 lost and 20 won is not."""
    found = compare_files(saved(answers(375, 500)), saved(new))
    assert judged(found) == verdict
    assert found.regressed is (verdict == "worse")
    assert found.deltas[0].change_ci95 is not None
    if between is not None:
        assert found.deltas[0].change_ci95 == pytest.approx(between, abs=0.1)


@pytest.mark.parametrize(
    ("hits", "verdict"),
    [(375, "same"), (300, "worse"), (365, "unclear"), (425, "better")],
    ids=["same", "60", "73", "85 percent"],
)
@pytest.mark.parametrize("why", ["the images differ", "eval --save keeps", "could not read"])
def test_an_accuracy_of_other_images_is_judged_by_its_intervals(saved: Saved, hits: int, verdict: str, why: str) -> None:
    """The reason why it is not compared image by image is noted."""
    new = answers(hits, 500)
    how = {
        "the images differ": lambda: saved(new, digest="e"),
        "eval --save keeps": lambda: saved(new, kept=False),
        "could not read": lambda: saved(new + "1"),
    }
    found = compare_files(saved(answers(375, 500)), how[why]())
    assert (judged(found), found.deltas[0].change_ci95) == (verdict, None)
    assert any(why in note for note in found.notes)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.floats(0, 20))
def test_no_accuracy_is_worse_both_ways(both: int, lost: int, won: int, neither: int, tolerance: float) -> None:
    """Swapping the two negates the change and its interval and turns worse into better; the change lies in its interval."""
    assume(both + lost + won + neither > 0)
    old = accuracy("1" * (both + lost) + "0" * (won + neither))
    new = accuracy("1" * both + "0" * lost + "1" * won + "0" * neither)
    there, back = top1_delta("", old, new, tolerance), top1_delta("", new, old, tolerance)
    assert there.change is not None
    assert there.change_ci95 is not None
    assert back.change_ci95 is not None
    assert there.change_ci95[0] <= there.change + 1e-9
    assert there.change <= there.change_ci95[1] + 1e-9
    assert back.change_ci95 == pytest.approx((-there.change_ci95[1], -there.change_ci95[0]))
    turned = {"worse": "better", "better": "worse"}
    assert back.verdict == turned.get(there.verdict, there.verdict)


def test_unusable_files_are_refused(measure: Callable[[float], BenchResult], saved: Saved, tmp_path: Path) -> None:
    """Missing, truncated, of two kinds, or of neither kind: one line each."""
    good, cut = saved(measure(10.0)), tmp_path / "cut.json"
    cut.write_text(good.read_text()[:500])
    neither = tmp_path / "neither.json"
    neither.write_text("{}")
    strange = saved("11")
    strange.write_text(strange.read_text().replace('"ci95": [', '"ci95": ["x", '))
    for pair, message in (
        ((good, tmp_path / "none.json"), "cannot be read"),
        ((good, cut), "cut off"),
        ((good, saved("11")), "two kinds"),
        ((neither, neither), "not written by edge-resnet bench"),
        ((strange, saved("11")), "ci95"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            compare_files(*pair)
        assert caught.value.hint
    with pytest.raises(ConfigError, match="tolerance"):
        compare_files(good, good, tolerance_percent=-1)
