"""budget.py: finds exactly the damaging nodes of real graphs; properties of the search for damages of any kind."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from exported import graph, image_batch, small
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edge_resnet.artifact.schema import BudgetReport
from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import BudgetError, ConfigError, DataError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.core.statistics import mcnemar_exact, paired_drop_interval
from edge_resnet.quantization.budget import PROBE_IMAGES, BudgetProblem, budget_warning, meet_budget
from edge_resnet.quantization.calibrate import calibrate
from edge_resnet.quantization.simulate import simulate

Floats = npt.NDArray[np.float32]
#: What `rescaled` breaks: the second convolutions of two of the three blocks.
GUILTY = ("layer2.0", "layer3.0")
CLASSES = 10
#: Percent points. The classes of an untrained network lie close together: INT8 as it should be loses 7 on these images.
BUDGET = 10.0


@dataclass
class Recorded:
    """A problem that records every run: which nodes were kept, over how many images."""

    problem: BudgetProblem
    runs: list[tuple[frozenset[str], tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        inner = self.problem.logits

        def logits(keep: frozenset[str], images: Sequence[int]) -> Floats:
            self.runs.append((keep, tuple(images)))
            return inner(keep, images)

        self.problem = replace(self.problem, logits=logits)

    def full(self) -> list[frozenset[str]]:
        """Nodes kept in the runs over all images."""
        return [keep for keep, images in self.runs if len(images) == len(self.problem.labels)]


def constant(model: onnx.ModelProto, name: str, change: Callable[[Floats], npt.NDArray[np.generic]]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)).astype(np.float32), name))


def centred(model: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """The network with its last bias set so that every class is equally likely; untrained, it would always give one class."""
    mean = simulate(model, [images]).mean(axis=0)
    constant(model, "fc.bias", lambda bias: bias - mean)
    return model


def rescaled(model: onnx.ModelProto, blocks: Sequence[str]) -> onnx.ModelProto:
    """The same function with the channels between a block's convolutions scaled by 1 to 1000 and scaled back.

    A ReLU passes positive factors through, so FP32 does not notice; one range for all channels then loses the small ones.
    """
    for block in blocks:
        constant(model, f"{block}.conv1.bias", lambda bias: bias * factors(len(bias)))
        constant(model, f"{block}.conv1.weight", lambda weight: weight * factors(len(weight))[:, None, None, None])
        constant(model, f"{block}.conv2.weight", lambda weight: weight / factors(weight.shape[1])[:, None, None])
    return model


def factors(channels: int) -> npt.NDArray[np.float64]:
    return np.random.default_rng(0).permutation(np.geomspace(1, 1000, channels))


def real_problem(folder: Path, blocks: Sequence[str], count: int = 200) -> BudgetProblem:
    """A network calibrated with method max; a tenth of the labels differ from FP32's answers."""
    images = image_batch(count, 16)
    model = rescaled(centred(graph(small()), images), blocks)
    onnx.save(model, folder / "model.onnx")
    recipe = QuantRecipe(method="max", images=32)
    table = calibrate(folder / "model.onnx", measured_tensors(model), [image_batch(32, 16, seed=1)], recipe)
    reference = simulate(model, [images])
    labels = reference.argmax(axis=1).astype(np.int64)
    labels[::10] = (labels[::10] + 1) % CLASSES

    def logits(keep: frozenset[str], wanted: Sequence[int]) -> Floats:
        kept = replace(table, recipe=replace(recipe, keep_high_precision=tuple(sorted(keep))))
        return simulate(quantize(model, kept, "tensorrt"), [images[list(wanted)]])

    nodes = tuple(dict.fromkeys(name for pair in tensorrt_pairs(model) for name, _ in pair.readers))
    return BudgetProblem(nodes, labels, reference, logits)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> BudgetProblem:
    """A network that INT8 does not hurt."""
    return real_problem(tmp_path_factory.mktemp("sound"), ())


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> BudgetProblem:
    """The same function with two convolutions whose inputs no single range can hold."""
    return real_problem(tmp_path_factory.mktemp("broken"), GUILTY)


@pytest.fixture(scope="module")
def met(broken: BudgetProblem) -> BudgetReport:
    """The budget's result for it."""
    return meet_budget(broken, BUDGET)


def hits(problem: BudgetProblem, logits: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(logits.argmax(axis=1) == problem.labels)


def drop_of(problem: BudgetProblem, kept: Sequence[str]) -> float:
    logits = problem.logits(frozenset(kept), range(len(problem.labels)))
    return 100 * (int(hits(problem, problem.reference).sum()) - int(hits(problem, logits).sum())) / len(problem.labels)


def test_rescaling_changes_int8_alone(sound: BudgetProblem, broken: BudgetProblem) -> None:
    """Precondition: both networks compute the same in FP32; INT8 of one is within the budget, of the other far from it."""
    assert np.abs(sound.reference - broken.reference).max() < 1e-5 * np.abs(sound.reference).max()
    assert drop_of(sound, ()) <= BUDGET
    assert drop_of(broken, ()) > 5 * BUDGET
    assert len(np.unique(sound.reference.argmax(axis=1))) == CLASSES


def test_just_the_guilty_nodes_are_kept(broken: BudgetProblem, met: BudgetReport) -> None:
    """Of thirteen nodes the two behind a rescaled channel are kept, the more damaging first, and neither suffices alone."""
    assert len(broken.nodes) == 13
    assert set(met.kept) == {f"{block}.conv2" for block in GUILTY}
    assert met.kept == tuple(name for name, _ in met.ranking[:2])
    assert drop_of(broken, met.kept) <= BUDGET
    assert all(drop_of(broken, [node]) > BUDGET for node in met.kept)


def test_the_report_is_what_one_counts_by_hand(broken: BudgetProblem, met: BudgetReport) -> None:
    """Every figure of the report follows from the logits of FP32 and of INT8 with the kept nodes."""
    right = hits(broken, broken.reference)
    int8 = hits(broken, broken.logits(frozenset(met.kept), range(200)))
    only = int((right & ~int8).sum()), int((int8 & ~right).sum())
    assert (met.max_drop, met.images, met.fp32_top1) == (BUDGET, 200, 90.0)
    assert met.int8_top1 == pytest.approx(100 * int8.mean())
    assert met.drop == pytest.approx(met.fp32_top1 - met.int8_top1)
    assert met.drop_ci95 == pytest.approx([100 * bound for bound in paired_drop_interval(*only, 200)])
    assert met.mcnemar_p == mcnemar_exact(*only)


def test_the_ranking_is_by_the_error_of_each_node_alone(broken: BudgetProblem, met: BudgetReport) -> None:
    """Every node is in it once, the largest first, with sum((int8 - fp32)²) / sum(fp32²) over a class-balanced 64 images."""
    assert {name for name, _ in met.ranking} == set(broken.nodes)
    damages = [damage for _, damage in met.ranking]
    assert damages == sorted(damages, reverse=True)
    recorded = Recorded(broken)
    meet_budget(recorded.problem, BUDGET)
    (images,) = {images for _, images in recorded.runs if len(images) < 200}
    assert len(images) == PROBE_IMAGES
    for name, damage in met.ranking[::6]:
        alone = broken.logits(frozenset(broken.nodes) - {name}, images).astype(np.float64)
        fp32 = broken.reference[list(images)]
        assert damage == pytest.approx(((alone - fp32) ** 2).sum() / (fp32.astype(np.float64) ** 2).sum(), rel=1e-5)


def test_a_sound_network_costs_one_run(sound: BudgetProblem) -> None:
    """If INT8 meets the budget as it is, nothing is kept or ranked, and the images run once."""
    recorded = Recorded(sound)
    report = meet_budget(recorded.problem, BUDGET)
    assert (report.kept, report.ranking) == ((), ())
    assert [(keep, len(images)) for keep, images in recorded.runs] == [(frozenset(), 200)]


def test_a_wider_budget_keeps_fewer(broken: BudgetProblem, met: BudgetReport) -> None:
    """A budget below the intact network's loss keeps more than the damaging nodes, these first; one above the drop none."""
    tight, wide = meet_budget(broken, 3.0), meet_budget(broken, drop_of(broken, ()))
    assert tight.kept[:2] == met.kept
    assert len(tight.kept) > 2 > len(wide.kept) == 0
    assert tight.drop <= 3.0


def test_a_budget_of_nothing_is_met(broken: BudgetProblem) -> None:
    """A budget of zero is met exactly: with everything in high precision INT8 is FP32."""
    assert drop_of(broken, broken.nodes) == 0
    assert meet_budget(broken, 0).drop <= 0


def table_problem(wrong: dict[str, set[int]], count: int, labels: Sequence[int] = ()) -> Recorded:
    """A network whose nodes, when quantized, each misclassify their own images; FP32 classifies all correctly."""
    classes = np.array(labels or [0] * count, np.int64)
    reference = np.eye(CLASSES, dtype=np.float32)[classes]

    def logits(keep: frozenset[str], images: Sequence[int]) -> Floats:
        spoilt = set().union(*(places for node, places in wrong.items() if node not in keep))
        answers = [(classes[place] + (place in spoilt)) % CLASSES for place in images]
        return np.eye(CLASSES, dtype=np.float32)[answers]

    return Recorded(BudgetProblem(tuple(wrong), classes, reference, logits))


def bound(nodes: int) -> float:
    return 4 * math.log2(nodes) + 5


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=8), allowed=st.integers(0, 20))
def test_it_is_the_fewest(sizes: list[int], allowed: int) -> None:
    """If nodes damage different images, no smaller set than the kept one meets the budget."""
    count = 100
    starts = np.cumsum([0, *sizes[:-1]])
    wrong = {f"n{i}": set(range(start, start + size)) for i, (start, size) in enumerate(zip(starts, sizes, strict=True))}
    recorded = table_problem(wrong, count)
    report = meet_budget(recorded.problem, 100 * allowed / count)
    fewest = next(
        size
        for size in range(len(wrong) + 1)
        if any(
            sum(sizes) - sum(sizes[i] for i in chosen) <= allowed for chosen in itertools.combinations(range(len(wrong)), size)
        )
    )
    assert len(report.kept) == fewest
    assert report.drop <= 100 * allowed / count
    assert len(recorded.full()) <= bound(len(wrong))


@given(
    wrong=st.lists(st.sets(st.integers(0, 63), max_size=12), min_size=1, max_size=70),
    allowed=st.integers(0, 40),
)
def test_overlapping_damages(wrong: list[set[int]], allowed: int) -> None:
    """The budget is met in few runs, none repeated; unless very many nodes are kept, none of them could be quantized."""
    recorded = table_problem({f"n{i}": places for i, places in enumerate(wrong)}, 100)
    report = meet_budget(recorded.problem, allowed)
    assert report.drop <= allowed
    assert len(recorded.full()) == len(set(recorded.full())) <= bound(len(wrong))
    if len(report.kept) <= 2 * len(wrong).bit_length() + 1:
        assert all(drop_of(recorded.problem, set(report.kept) - {node}) > report.max_drop for node in report.kept)


def test_the_least_damaging_is_given_back() -> None:
    """One of the first two of three kept nodes turns out not to be needed: the more damaging one stays."""
    wrong = {"a": {0, 1, 2, 3, 4}, "b": {2, 3, 4, 5}, "c": {10, 11, 12, 13}, "d": {2, 3, 4}}
    problem = table_problem(wrong, 100).problem
    over = {kept: drop_of(problem, kept) > 5 for kept in (("a", "b"), ("a", "b", "c"), ("a", "c"), ("b", "c"), ("c",))}
    assert list(over.values()) == [True, False, False, False, True]
    assert meet_budget(problem, 5).kept == ("a", "c")


@given(seed=st.integers(0, 2**32), nodes=st.integers(1, 20), allowed=st.integers(0, 60))
def test_it_needs_no_monotone_drop(seed: int, nodes: int, allowed: int) -> None:
    """If every set of kept nodes has its own random drop, the reported set meets the budget, or no set that was tried did."""
    rng = np.random.default_rng(seed)
    order = [f"n{i}" for i in range(nodes)]
    drops: dict[frozenset[str], int] = {}

    def logits(keep: frozenset[str], images: Sequence[int]) -> Floats:
        spoilt = drops.setdefault(keep, int(rng.integers(0, 100)))
        return np.eye(CLASSES, dtype=np.float32)[[int(place < spoilt) for place in images]]

    reference = np.eye(CLASSES, dtype=np.float32)[np.zeros(100, int)]
    recorded = Recorded(BudgetProblem(tuple(order), np.zeros(100, np.int64), reference, logits))
    try:
        report = meet_budget(recorded.problem, allowed)
    except BudgetError:
        assert all(drops[keep] > allowed for keep in recorded.full())
    else:
        assert drops[frozenset(report.kept)] == report.drop <= allowed
    assert len(recorded.full()) == len(set(recorded.full())) <= bound(nodes)


def test_the_runs_grow_with_the_logarithm() -> None:
    """Seventy nodes of which three are damaging take one run, three to find three, and two to see that all are needed."""
    wrong = {f"n{i}": set(range(i, i + 10)) if i in (20, 40, 60) else set() for i in range(70)}
    recorded = table_problem(wrong, 200)
    assert set(meet_budget(recorded.problem, 0).kept) == {"n20", "n40", "n60"}
    assert [len(keep) for keep in recorded.full()] == [0, 1, 2, 4, 3, 2, 2]


def test_equal_damages_go_to_the_cheaper() -> None:
    """If either of two nodes would do, the one that costs less speed is kept; without costs, the first."""
    problem = table_problem({"early": {0, 1}, "late": {2, 3}}, 10).problem
    assert meet_budget(problem, 20).kept == ("early",)
    assert meet_budget(replace(problem, costs={"early": 5.0, "late": 1.0}), 20).kept == ("late",)


def test_the_ranking_takes_classes_in_turn() -> None:
    """Of 300 images sorted by class, a hundred each, the 64 used are the first 22, 21 and 21 of every class."""
    recorded = table_problem({"a": set(range(300))}, 300, labels=[place // 100 for place in range(300)])
    meet_budget(recorded.problem, 0)
    (images,) = {images for _, images in recorded.runs if len(images) < 300}
    assert images == (*range(22), *range(100, 121), *range(200, 221))


def test_out_of_reach(sound: BudgetProblem) -> None:
    """If FP32 is another, better network, no node helps: the error has the drop, the best seen, a hint, and exit code 3."""
    better = replace(sound, reference=np.eye(CLASSES, dtype=np.float32)[sound.labels])
    message = r"loses 10\.00 points of top-1 with 13 of 13 nodes .* budget is 0\.5 \(best seen: \d+\.\d\d with \d+\)"
    with pytest.raises(BudgetError, match=message) as caught:
        meet_budget(better, 0.5)
    assert caught.value.exit_code == 3
    assert "a larger drop" in caught.value.hint


@pytest.mark.parametrize(("most", "kept"), [(1.0, 4), (0.5, 4), (0.4, None), (0.0, None)])
def test_more_than_a_share_of_the_nodes_is_not_kept(most: float, kept: int | None) -> None:
    """Eight nodes of which four are needed: they are kept if half may be; if fewer may be, the budget cannot be met."""
    recorded = table_problem({f"n{i}": {i} for i in range(8)}, 100)
    if kept is not None:
        assert len(meet_budget(recorded.problem, 4, max_share=most).kept) == kept
        return
    with pytest.raises(BudgetError, match=f"{int(most * 8)} of 8 nodes"):
        meet_budget(recorded.problem, 4, max_share=most)
    assert max(len(keep) for keep in recorded.full()) <= most * 8


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_wrong(value: float) -> None:
    """NaN and infinity in the logits count as misses and as the largest damage; the node that makes them is kept."""
    problem = table_problem({"fine": set(), "overflows": set(), "rough": {3}}, 20).problem
    inner = problem.logits

    def logits(keep: frozenset[str], images: Sequence[int]) -> Floats:
        answers = inner(keep, images)
        return answers if "overflows" in keep else answers * value

    with np.errstate(invalid="ignore"):
        report = meet_budget(replace(problem, logits=logits), 5)
    assert report.kept == ("overflows",)
    assert report.ranking[0][0] == "overflows"
    assert math.isfinite(report.ranking[0][1])


@pytest.mark.parametrize("call", [0, 1, 7, 13, 14, 16])
def test_an_interruption_passes_through(broken: BudgetProblem, met: BudgetReport, call: int) -> None:
    """Ctrl-C in any run ends the search at once; the same problem is solved as before when tried again."""
    recorded = Recorded(broken)
    inner = recorded.problem.logits

    def logits(keep: frozenset[str], images: Sequence[int]) -> Floats:
        if len(recorded.runs) == call:
            raise KeyboardInterrupt
        return inner(keep, images)

    with pytest.raises(KeyboardInterrupt):
        meet_budget(replace(broken, logits=logits), BUDGET)
    assert len(recorded.runs) == call
    assert meet_budget(broken, BUDGET) == met


@pytest.mark.parametrize("allowed", [0, 40, 100])
def test_progress_never_goes_back_and_ends_complete(allowed: float) -> None:
    """Each stage starts at 0, rises, never exceeds its total and ends with done == total."""
    calls: list[tuple[str, int, int]] = []
    problem = table_problem({f"n{i}": {i} for i in range(8)}, 10).problem
    report = meet_budget(problem, allowed, progress=lambda *call: calls.append(call))
    stages = {stage: [(done, total) for name, done, total in calls if name == stage] for stage, _, _ in calls}
    assert list(stages) == (["budget: check", "budget: rank"] if report.kept else ["budget: check"])
    for steps in stages.values():
        done = [done for done, _ in steps]
        assert done[0] == 0
        assert done == sorted(done)
        assert all(done <= total for done, total in steps)
        assert steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("value", [-0.1, 100.1, math.nan])
def test_a_budget_or_share_that_makes_no_sense(value: float) -> None:
    """Values that are no percentage or no share are refused before anything runs."""
    recorded = table_problem({"a": {0}}, 4)
    with pytest.raises(ConfigError, match="budget"):
        meet_budget(recorded.problem, value)
    with pytest.raises(ConfigError, match="share"):
        meet_budget(recorded.problem, 1, max_share=value)
    assert recorded.runs == []


def test_images_labels_and_answers_belong_together() -> None:
    """No image, a label too many, and a run that skips an image are refused."""
    problem = table_problem({"a": {0}}, 4).problem
    with pytest.raises(DataError, match="no image"):
        meet_budget(replace(problem, labels=np.zeros(0, np.int64)), 1)
    with pytest.raises(DataError, match="5 labels for 4 images"):
        meet_budget(replace(problem, labels=np.zeros(5, np.int64)), 1)
    with pytest.raises(DataError, match="4 images gave 3 answers"):
        meet_budget(replace(problem, logits=lambda keep, images: problem.logits(keep, images[1:])), 1)


def report_of(only_fp32: int, only_int8: int, count: int, max_drop: float) -> BudgetReport:
    low, high = paired_drop_interval(only_fp32, only_int8, count)
    drop = 100 * (only_fp32 - only_int8) / count
    p = mcnemar_exact(only_fp32, only_int8)
    return BudgetReport(max_drop, count, 80.0, 80.0 - drop, drop, (100 * low, 100 * high), p, (), ())


@given(st.integers(0, 20), st.integers(0, 20), st.integers(50, 5000), st.floats(0.1, 5))
def test_the_number_of_images_named_is_enough(only_fp32: int, only_int8: int, count: int, max_drop: float) -> None:
    """With as many images as the warning names, at the same shares, the interval is as narrow as ± the budget, or nearly."""
    report = report_of(only_fp32, only_int8, count, max_drop)
    text = budget_warning(report)
    assert bool(text) == (report.drop <= max_drop < report.drop_ci95[1])
    if "about" in text:
        needed = int(text.split("about ")[1].split(" ")[0].replace(",", ""))
        factor = needed / count
        assert factor > 1
        low, high = paired_drop_interval(round(only_fp32 * factor), round(only_int8 * factor), needed)
        assert 100 * (high - low) / 2 <= 1.1 * max_drop + 100 / needed


def test_known_warnings() -> None:
    """Five hundred images cannot resolve half a point, fifty thousand can; no number of images is enough for a budget of zero."""
    assert budget_warning(report_of(11, 9, 500, 0.5)) == (
        "500 images leave INT8's drop between -1.47 and 2.33 points (95 % interval), the budget is 0.5; "
        "about 7,300 images would narrow it to ± 0.5"
    )
    assert budget_warning(report_of(1100, 1000, 50_000, 0.5)) == ""
    assert "about" not in budget_warning(report_of(9, 11, 500, 0))
    assert budget_warning(report_of(30, 10, 500, 0.5)) == ""


def test_too_few_images_are_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """The search logs the warning once, and none if the images suffice or the budget is wide."""
    problem = table_problem({"a": {0}}, 50).problem
    with caplog.at_level(logging.WARNING):
        meet_budget(problem, 50)
        assert caplog.messages == []
        report = meet_budget(problem, 2)
    assert caplog.messages == [budget_warning(report)]
    assert "about" in caplog.messages[0]
