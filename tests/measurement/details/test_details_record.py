"""The details of an evaluation equal counts by hand, and the page shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import ConfidenceRule
from edge_resnet.core.statistics import wilson_interval
from edge_resnet.images.imageset import ImageSet, from_arrays
from edge_resnet.measurement.accuracy import EvalOptions, evaluate_with
from edge_resnet.measurement.details import Details, DetailsCollector, write_details
from edge_resnet.measurement.details.charts import MAX_CLASSES, drawn_classes
from edge_resnet.measurement.details.record import ConfusedPair
from edge_resnet.runtime.backend import open_backend
from edge_resnet.runtime.postprocess import softmax


@pytest.fixture(scope="module")
def images(tiny_artifacts: dict[str, Artifact]) -> ImageSet:
    """Images of which most are labelled as FP32 says; class 9 has none, and ten are labelled as another class."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (128, 4, 4, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    with open_backend(tiny_artifacts["fp32"], "onnxruntime") as network:
        labels = network.infer(pixels).argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 9
    return from_arrays("labelled", pixels, np.where(labels == 9, 0, labels))


def measured(artifact: Artifact, images: ImageSet) -> Details:
    tap = DetailsCollector(artifact, images)
    return tap.details(evaluate_with(artifact, images, EvalOptions("onnxruntime", tap=tap)))


def test_it_equals_counts_by_hand(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """Confusion, accuracy per class with Wilson's interval, the worst pair, and wrong answers at a threshold."""
    artifact = tiny_artifacts["fp32"]
    found = measured(artifact, images)
    with open_backend(artifact, "onnxruntime") as network:
        logits = network.infer(np.stack([images.load(index) for index in range(len(images))]))
    labels, best, sure = np.array(images.labels), logits.argmax(axis=1), softmax(logits).max(axis=1)
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (labels, best), 1)
    assert sum(count for _, _, count in found.confusion) == 128
    assert all(matrix[true, said] == count for true, said, count in found.confusion)
    for entry in found.classes:
        assert (entry.images, entry.right) == (matrix[entry.class_index].sum(), matrix[entry.class_index, entry.class_index])
        if entry.images:
            assert entry.ci95 == pytest.approx([100 * end for end in wilson_interval(entry.right, entry.images)])
    assert artifact.labels[9] in found.missing
    assert found.classes[9].accuracy is None
    off = matrix - np.diag(np.diag(matrix))
    assert found.pairs[0].count == off.max() == off[found.pairs[0].true, found.pairs[0].predicted]
    probabilities = [example.probability for example in found.pairs[0].examples]
    assert probabilities == sorted(probabilities, reverse=True)
    row = next(row for row in found.thresholds if row.threshold == 0)
    assert (row.answered, row.wrong) == (128, (best != labels).sum())
    half = float(np.median(sure))
    assert sum(bin_.images for bin_ in found.reliability.bins) == 128
    assert found.reliability.confidence == pytest.approx(100 * sure.mean(), rel=1e-5)
    assert found.untempered is None
    assert 0 < half < 1


def test_the_artifacts_rule_is_shown(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """With a temperature there are two curves, and the artifact's threshold is a row of its own."""
    artifact = tiny_artifacts["fp32"]
    rule = ConfidenceRule(2.0, 0.1234, 1.0, "fp32", "onnxruntime", artifact.source_digest(), "", "", 9, 9, 0, 1.0, 9, 0, 1.0, 1.0)
    found = measured(replace(artifact, manifest=replace(artifact.manifest, confidence=rule)), images)
    assert found.untempered is not None
    assert found.reliability.temperature == 2
    assert found.reliability.confidence < found.untempered.confidence
    assert [row.threshold for row in found.thresholds if row.own] == [0.1234]


def test_the_page(tiny_artifacts: dict[str, Artifact], images: ImageSet, tmp_path: Path) -> None:
    """It holds the findings, both charts, a thumbnail for each example, and fetches nothing; labels are escaped."""
    pytest.importorskip("matplotlib")
    artifact = replace(tiny_artifacts["fp32"], labels=("<b>zero</b>", *tiny_artifacts["fp32"].labels[1:]))
    found = measured(artifact, images)
    page = write_details(found, images, tmp_path / "page").read_text(encoding="utf-8")
    assert "<b>zero" not in page
    assert "&lt;b&gt;zero" in page
    assert page.count('<img src="data:image/') == sum(len(pair.examples) for pair in found.pairs)
    assert 'src="http' not in page
    assert page.count("<svg") == 2
    record = json.loads((tmp_path / "page" / "details.json").read_text(encoding="utf-8"))
    assert record["kind"] == "edge-resnet eval details"
    assert len(record["classes"]) == 10


def test_many_classes_are_drawn_by_their_worst_pairs(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """Of more classes than can be read those of the worst pairs are drawn."""
    few = measured(tiny_artifacts["fp32"], images)
    assert len(drawn_classes(few)) <= 10
    cells = tuple((index, index, 1) for index in range(MAX_CLASSES + 1))
    pair = ConfusedPair(7, 20, "seven", "twenty", 1, 50.0, 0, ())
    assert drawn_classes(replace(few, confusion=cells, pairs=(pair,))) == (7, 20)
