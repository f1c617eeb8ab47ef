"""The threshold for unknown keeps its promise on images that it was not found on, and is refused where it could not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import as_trained

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.statistics import binomial_tail, binomial_upper_bound
from edge_resnet.images.imageset import ImageSet, from_arrays
from edge_resnet.measurement.threshold import Scores, choose_threshold, find_rule, images_needed, rule_of
from edge_resnet.runtime.backend import open_backend


def answers(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether the answers are right: as often as the confidence says."""
    rng = np.random.default_rng(seed)
    confidence = 1 - 0.6 * rng.random(count) ** 3
    return confidence, rng.random(count) < confidence


def scores(count: int, seed: int = 0) -> Scores:
    """Logits of three classes, and labels drawn by their softmax at a temperature of 2."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (count, 3))
    powers = np.exp(logits)
    shares = (powers / powers.sum(axis=1, keepdims=True)).cumsum(axis=1)
    return Scores((2 * logits).astype(np.float32), (rng.random((count, 1)) > shares).sum(axis=1).clip(0, 2))


@pytest.mark.parametrize(("hits", "count"), [(0, 299), (3, 50), (42, 6287)])
def test_the_bound_is_where_the_tail_is(hits: int, count: int) -> None:
    """At the bound, so few wrong answers have a probability of exactly the level."""
    bound = binomial_upper_bound(hits, count, 0.05)
    assert 1 - binomial_tail(hits + 1, count, bound) == pytest.approx(0.05, rel=1e-6)
    assert binomial_upper_bound(count, count, 0.05) == 1


def test_the_share_holds_on_other_images() -> None:
    """Over forty draws of 2,000 images the share of wrong answers is above the promised one at most as often as 95 % allow."""
    broken = 0
    for seed in range(40):
        found = choose_threshold(*answers(2000, seed), 0.03)
        assert found is not None
        confidence, right = answers(50_000, 1000 + seed)
        broken += (~right[confidence >= found.value]).mean() > 0.03
    assert broken <= 5  # of 40 at 5 %: above 5 with a probability of 1.4 %


def test_the_counts_are_those_of_the_stored_number() -> None:
    """The threshold is rounded before it is counted with, and lies in [0, 1)."""
    confidence, right = answers(2000, 1)
    found = choose_threshold(confidence, right, 0.05)
    assert found is not None
    passed = confidence >= found.value
    assert (found.answered, found.wrong) == (passed.sum(), (passed & ~right).sum())
    assert found.wrong / found.answered < found.bound <= 0.05
    assert round(found.value * 10_000) == pytest.approx(found.value * 10_000)


def test_a_perfect_network_answers_all() -> None:
    """Where no answer is wrong the threshold is the lowest confidence, below which nothing was measured."""
    found = choose_threshold(np.linspace(0.4, 1, 1000), np.ones(1000, bool), 0.01)
    assert found is not None
    assert (found.value, found.answered) == (pytest.approx(0.4), 1000)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_how_many_images_are_needed(share: float) -> None:
    """With as many images, all right, each of the five rules finds a threshold; with too few there is none."""
    needed = images_needed(share)
    four_fifths = needed * 4 // 5
    assert choose_threshold(np.linspace(0.5, 1, four_fifths), np.ones(four_fifths, bool), share) is not None
    few = needed // 2
    assert choose_threshold(np.linspace(0.5, 1, few), np.ones(few, bool), share) is None


def test_nobody_passes() -> None:
    """Where even the most confident answers are wrong too often it is refused, with their share."""
    found = scores(2000)
    wrong = replace(found, labels=np.where(np.arange(2000) % 3 == 0, found.logits.argmin(axis=1), found.labels))
    with pytest.raises(DataError, match=r"keeps wrong answers at 1 %: of the \d+ most confident answers \d+ are wrong"):
        rule_of(wrong, 1)


def test_each_image_is_judged_by_the_others() -> None:
    """The held-out counts are near those of the rule, the temperature is found, and the error falls."""
    found = rule_of(scores(4000), 5)
    assert found.temperature == pytest.approx(2, rel=0.1)
    assert found.held_out_answered == pytest.approx(found.threshold.answered, rel=0.1)
    assert found.held_out_wrong / found.held_out_answered < 0.05
    assert found.ece_after < found.ece_before


@pytest.fixture(scope="module")
def labelled(tiny_artifacts: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, ImageSet]:
    """An artifact, and 256 images whose labels are nearly always what it says."""
    artifact = open_artifact(as_trained(tiny_artifacts["int8"], tmp_path_factory.mktemp("trained") / "int8"))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (256, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    with open_backend(artifact, "onnxruntime", "reference") as network:
        labels = network.infer(images).argmax(axis=1)
    labels[rng.permutation(256)[:6]] = 9
    return artifact, from_arrays("labelled", images, labels)


def test_what_is_refused(labelled: tuple[Artifact, ImageSet]) -> None:
    """Too few images, images of one class, without labels or with labels beyond the classes, and a share that is none."""
    artifact, images = labelled
    few = images.subset(range(60))
    with pytest.raises(
        DataError, match=r"60 labelled images are too few for 1 % wrong answers: at least \d+ are needed"
    ) as error:
        find_rule(artifact, few, 1)
    assert "--threshold 10" in (error.value.hint or "")
    one = from_arrays("one", np.zeros((64, 32, 32, 3), np.uint8), [3] * 64)
    with pytest.raises(DataError, match="all 64 images of one are of one class"):
        find_rule(artifact, one, 20)
    with pytest.raises(DataError, match="no labels"):
        find_rule(artifact, from_arrays("bare", np.zeros((64, 32, 32, 3), np.uint8)), 20)
    with pytest.raises(DataError, match=r"has class 10, the network knows 0\.\.9"):
        find_rule(artifact, from_arrays("more", np.zeros((64, 32, 32, 3), np.uint8), [10, 1] * 32), 20)
    for share in (0, 100, -1, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 100"):
            find_rule(artifact, images, share)


def test_int8_is_measured_on_int8(labelled: tuple[Artifact, ImageSet], caplog: pytest.LogCaptureFixture) -> None:
    """The rule says which INT8 was measured, and how many classes had no image."""
    artifact, images = labelled
    cpu = find_rule(artifact, images, 20, backend="onnxruntime")
    compile_engine(artifact, variant="simulated")
    simulated = find_rule(artifact, images, 20, simulate=True)
    assert (cpu.computation, simulated.computation) == ("int8-cpu", "int8-tensorrt")
    assert cpu.source == artifact.source_digest()
    assert cpu.images == 256
    assert "classes have no image in labelled" in caplog.text
