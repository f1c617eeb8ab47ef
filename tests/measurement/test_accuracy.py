"""Accuracy: equal to counts by hand, compared with FP32 on the same images, refused where it would mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet.artifact.folder import Artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.statistics import mcnemar_exact, paired_drop_interval, wilson_interval
from edge_resnet.images.imageset import ImageSet, from_arrays, open_images
from edge_resnet.measurement.accuracy import chance_warning, evaluate, refuse_random_weights
from edge_resnet.runtime.backend import open_backend


@pytest.fixture(scope="module")
def images(smooth_images: Path) -> ImageSet:
    """Sixty-four labelled images of the network's input size."""
    content = np.load(smooth_images)
    return from_arrays("smooth", np.ascontiguousarray(content["images"][:, :32, :32]), content["labels"])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_equals_counts_by_hand(tiny_artifacts: dict[str, Artifact], images: ImageSet, precision: str) -> None:
    """Top-1, top-5 and agreement equal counts over logits taken one by one."""
    artifact = tiny_artifacts[precision]
    batch = np.stack([images.load(index) for index in range(len(images))])
    with open_backend(artifact) as network, open_backend(artifact, variant="reference") as reference:
        logits = np.concatenate([network.infer(image[None]) for image in batch])
        expected = np.concatenate([reference.infer(image[None]) for image in batch])
    labels = np.array(images.labels)
    result = evaluate(artifact, images)
    ranks = (logits > np.take_along_axis(logits, labels[:, None], 1)).sum(1)
    assert result.images == 64
    assert result.top1 == pytest.approx(100 * np.mean(logits.argmax(1) == labels))
    assert result.top5 == pytest.approx(100 * np.mean(ranks < 5))
    assert result.agreement == pytest.approx(100 * np.mean(logits.argmax(1) == expected.argmax(1)))
    assert result.fp32_top1 == pytest.approx(100 * np.mean(expected.argmax(1) == labels))


def test_a_network_agrees_with_itself(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """FP32 against FP32 agrees on 100 %, the interval is Wilson's, and the drop is exactly 0: it is the same computation."""
    result = evaluate(tiny_artifacts["fp32"], images, backend="onnxruntime")
    assert result.agreement == 100
    assert (result.drop_ci95, result.mcnemar_p) == ((0, 0), 1)
    assert result.fp32_top1 == result.top1
    low, high = wilson_interval(round(result.top1 * 0.64), 64)
    assert result.ci95 == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize("right", [range(64), range(0, 64, 2), ()], ids=["all", "half", "none"])
def test_the_drop_is_paired(tiny_artifacts: dict[str, Artifact], images: ImageSet, right: Sequence[int]) -> None:
    """FP32 is correct on these images alone: interval and p-value come from the images on which only one of the two is."""
    artifact = tiny_artifacts["fp32"]
    batch = np.stack([images.load(index) for index in range(64)])
    with open_backend(artifact) as fp32, open_backend(artifact, "fake") as fake:
        best, other = fp32.infer(batch).argmax(1), fake.infer(batch).argmax(1)
    labels = np.where(np.isin(range(64), right), best, other)
    result = evaluate(artifact, from_arrays("named", batch, labels), backend="fake")
    only = int(((best == labels) & (other != labels)).sum()), int(((other == labels) & (best != labels)).sum())
    low, high = paired_drop_interval(*only, 64)
    assert result.fp32_top1 - result.top1 == pytest.approx(100 * (only[0] - only[1]) / 64)
    assert result.drop_ci95 == pytest.approx((100 * low, 100 * high))
    assert result.mcnemar_p == mcnemar_exact(*only)
    assert low <= (only[0] - only[1]) / 64 <= high


def test_the_simulation_is_another_computation(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """Simulated INT8 is marked as such; on a float artifact there is nothing to simulate."""
    artifact = tiny_artifacts["int8"]
    compile_engine(artifact, variant="simulated")
    assert evaluate(artifact, images, simulate=True).simulated
    assert not evaluate(artifact, images).simulated
    with pytest.raises(ConfigError, match="no INT8 to simulate"):
        evaluate(tiny_artifacts["fp32"], images, simulate=True)


def test_images_without_labels_are_refused(tiny_artifacts: dict[str, Artifact]) -> None:
    """Accuracy needs labels."""
    with pytest.raises(DataError, match="no labels"):
        evaluate(tiny_artifacts["fp32"], from_arrays("bare", np.zeros((3, 32, 32, 3), np.uint8)))


def test_labels_of_another_network_are_refused(tiny_artifacts: dict[str, Artifact]) -> None:
    """The error names the image whose class the network does not have."""
    with pytest.raises(DataError, match=r"other\[1\] has class 10"):
        evaluate(tiny_artifacts["fp32"], from_arrays("other", np.zeros((2, 32, 32, 3), np.uint8), [0, 10]))


def test_classes_of_another_network_are_refused(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """A set that names its classes must have the network's, in number and in order; in any spelling they pass."""
    artifact = tiny_artifacts["fp32"]
    for names, said in (
        (["a", "b"], r"smooth has 2 \(a, b\), the network 10 \(airplane, automobile, bird, …\)"),
        (artifact.labels[::-1], "in another order"),
        (["plane", *artifact.labels[1:]], "has 'plane' where the network has 'airplane'"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            evaluate(artifact, replace(images, class_names=tuple(names)))
        assert "--labels" in caught.value.hint
    assert evaluate(artifact, replace(images, class_names=tuple(label.upper() for label in artifact.labels))).images == 64


def test_a_result_that_is_not_above_chance_is_a_warning(
    tiny_artifacts: dict[str, Artifact], images: ImageSet, caplog: pytest.LogCaptureFixture
) -> None:
    """Labels that have nothing to do with the network's answers are noticed; its own answers as labels are not."""
    artifact = tiny_artifacts["fp32"]
    batch = np.stack([images.load(index) for index in range(64)])
    with open_backend(artifact) as network:
        best = network.infer(batch).argmax(1)
    evaluate(artifact, from_arrays("right", batch, best), backend="onnxruntime")
    assert not caplog.records
    evaluate(artifact, from_arrays("wrong", batch, (best + 1) % 10), backend="onnxruntime")
    assert "top-1 of 0.00 % on 64 images is not significantly above chance" in caplog.text


@pytest.mark.parametrize(
    ("hits", "labels", "classes", "warned"),
    [
        (2, [0] * 20, 1000, False),  # of one class only: a guess is right in one of 1000
        (1, [0] * 20, 10, True),
        (8, [0, 1] * 10, 1000, True),  # of two classes, however many the network has
        (15, [0, 1] * 10, 1000, False),
        (1, [0], 10, True),
        (1, [0], 1000, False),
    ],
)
def test_what_chance_is(hits: int, labels: list[int], classes: int, warned: bool) -> None:
    """Chance is a guess among the classes of the images, tested one-sided at 5 %."""
    assert (chance_warning(hits, labels, classes) is not None) == warned


def test_random_weights_are_refused(tiny_artifacts: dict[str, Artifact]) -> None:
    """The accuracy of a network that was never trained means nothing; a trained one passes."""
    artifact = tiny_artifacts["fp32"]
    with pytest.raises(ConfigError, match="random weights") as caught:
        refuse_random_weights(artifact)
    assert "--allow-random" in caught.value.hint
    trained = replace(artifact.manifest, model=replace(artifact.manifest.model, weights="v1"))
    refuse_random_weights(replace(artifact, manifest=trained))


def _class_folders(root: Path, good: int, bad: int) -> Path:
    (root / "0").mkdir(parents=True)
    (root / "1").mkdir()
    for index in range(good):
        shade = np.full((36, 40, 3), index, np.uint8)
        Image.fromarray(shade).save(root / "01"[index % 2] / f"{index:03}.png")
    for index in range(bad):
        (root / "0" / f"bad{index}.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return root


def test_a_corrupt_image_is_skipped_counted_and_named(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """One bad file of 41 does not stop the measurement; the result names it."""
    artifact = tiny_artifacts["fp32"]
    result = evaluate(artifact, open_images(_class_folders(tmp_path / "x", 40, 1), label_names=artifact.labels))
    assert result.images == 40
    assert len(result.skipped) == 1
    assert "bad0.png" in result.skipped[0]


def test_too_many_corrupt_images_are_an_error(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """A set of which a third cannot be read is not measured."""
    artifact = tiny_artifacts["fp32"]
    with pytest.raises(DataError, match="cannot be read"):
        evaluate(artifact, open_images(_class_folders(tmp_path / "x", 20, 10), label_names=artifact.labels))


def test_progress_rises_to_the_end(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """It starts at 0 and ends with every image."""
    calls: list[tuple[str, int, int]] = []
    evaluate(tiny_artifacts["fp32"], images, progress=lambda *call: calls.append(call))
    done = [call[1] for call in calls]
    assert done == sorted(done)
    assert (calls[0], calls[-1]) == (("evaluate", 0, 64), ("evaluate", 64, 64))


def test_any_backend_can_be_measured(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """The fake backend's accuracy is chance and its agreement is not 100."""
    result = evaluate(tiny_artifacts["fp32"], images, backend="fake")
    assert result.backend == "fake"
    assert result.agreement < 100
