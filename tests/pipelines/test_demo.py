"""The demonstration trains, measures both precisions and classifies a stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_resnet.artifact.folder import open_artifact
from edge_resnet.pipelines.demo import DemoResult


@pytest.fixture(scope="module")
def result(demonstration: tuple[DemoResult, Path]) -> DemoResult:
    """One run with eight layers and most of the training; of the tests of the README the slow one runs the whole."""
    return demonstration[0]


def test_the_network_learned_the_digits(result: DemoResult) -> None:
    """Even after a short training most unseen digits are classified correctly, and INT8 agrees with FP32."""
    fp32, int8 = result.outcomes["fp32"].accuracy, result.outcomes["int8"].accuracy
    assert fp32.images == int8.images >= 300
    assert fp32.top1 > 80
    assert int8.top1 > fp32.top1 - 3
    assert int8.agreement > 95


def test_both_latencies_were_measured(result: DemoResult) -> None:
    """Each precision has a latency of many samples."""
    for outcome in result.outcomes.values():
        assert outcome.latency.count > 10
        assert 0 < outcome.latency.p50_ms <= outcome.latency.p99_ms


def test_the_stream_was_classified(result: DemoResult) -> None:
    """Ten frames, their true digits, and answers with probabilities."""
    assert len(result.stream) == 10
    assert all(0 <= true <= 9 and 0 <= answer <= 9 and 0 < probability <= 1 for true, answer, probability in result.stream)


def test_two_artifacts_are_left_and_nothing_else(result: DemoResult) -> None:
    """The weights file is gone, both artifacts open and say they were trained."""
    folders = [Path(outcome.folder) for outcome in result.outcomes.values()]
    assert sorted(folders[0].parent.iterdir()) == sorted(folders)
    for folder in folders:
        assert open_artifact(folder).manifest.model.weights.startswith("sha256:")
