"""The rule of an artifact: used where it is, overridden where one says otherwise, and said where it was measured elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import Computation, ConfidenceRule
from edge_resnet.core.errors import ConfigError
from edge_resnet.runtime.answers import UNKNOWN, AnswerRule, answer_rule, computation_of
from edge_resnet.runtime.backend import Variant
from edge_resnet.runtime.postprocess import softmax, top_k

RULE = ConfidenceRule(2.0, 0.7, 1.0, "int8-cpu", "onnxruntime", "", "set", "", 900, 800, 4, 0.9, 790, 5, 3.0, 1.0)


def ruled(artifact: Artifact, computation: Computation = "int8-cpu") -> Artifact:
    rule = replace(RULE, computation=computation, source=artifact.source_digest())
    return replace(artifact, manifest=replace(artifact.manifest, confidence=rule))


def test_the_artifacts_rule_unless_told_otherwise(tiny_artifacts: dict[str, Artifact]) -> None:
    """Temperature and threshold are the artifact's; a minimum of one's own replaces the threshold alone, and 0 turns it off."""
    artifact = ruled(tiny_artifacts["int8"])
    assert answer_rule(artifact, "onnxruntime") == AnswerRule(2.0, 0.7)
    assert answer_rule(artifact, "onnxruntime", min_confidence=0.4) == AnswerRule(2.0, 0.4)
    assert answer_rule(artifact, "onnxruntime", min_confidence=0.0) == AnswerRule(2.0, 0.0)
    assert answer_rule(tiny_artifacts["int8"], "onnxruntime") == AnswerRule()
    with pytest.raises(ConfigError, match=r"lies in 0\.\.1"):
        answer_rule(artifact, "onnxruntime", min_confidence=1.0)


def test_another_computation_is_said(tiny_artifacts: dict[str, Artifact], caplog: pytest.LogCaptureFixture) -> None:
    """A rule that was measured on another INT8 is used, with a warning that names both."""
    assert answer_rule(ruled(tiny_artifacts["int8"], "int8-tensorrt"), "onnxruntime") == AnswerRule(2.0, 0.7)
    assert "measured on int8-tensorrt (onnxruntime); here is int8-cpu" in caplog.text
    caplog.clear()
    answer_rule(ruled(tiny_artifacts["int8"], "int8-tensorrt"), "onnxruntime", "simulated")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("precision", "backend", "variant", "computation"),
    [
        ("fp32", "onnxruntime", "native", "fp32"),
        ("fp32", "tensorrt", "native", "fp32"),
        ("fp16", "tensorrt", "native", "fp16"),
        ("fp16", "onnxruntime", "native", "fp32"),
        ("int8", "openvino", "native", "int8-cpu"),
        ("int8", "onnxruntime", "simulated", "int8-tensorrt"),
        ("int8", "onnxruntime", "reference", "fp32"),
        ("int8", "tensorrt", "native", "int8-tensorrt"),
    ],
)
def test_what_computes(
    tiny_artifacts: dict[str, Artifact], precision: str, backend: str, variant: Variant, computation: str
) -> None:
    """The computation follows from precision, backend and variant, without the backend's library."""
    assert computation_of(tiny_artifacts[precision], backend, variant) == computation


def test_an_answer_is_a_class_or_unknown() -> None:
    """At the minimum it is the best class, below it unknown with the index -1; the order of the classes stays."""
    logits = np.array([1.0, 4.0, 2.0], np.float32)
    scaled = AnswerRule(2.0).scaled(logits)
    best = top_k(scaled, ("a", "b", "c"))
    assert [score.label for score in best] == ["b", "c", "a"]
    assert best[0].probability == softmax(logits / 2)[1]
    answer = AnswerRule(2.0, best[0].probability).answer(best)
    assert answer == best[0]
    unknown = AnswerRule(2.0, best[0].probability + 1e-6).answer(best)
    assert (unknown.class_index, unknown.label, unknown.probability) == (-1, UNKNOWN, best[0].probability)


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    """Any other is refused."""
    with pytest.raises(ConfigError, match="temperature is above 0"):
        AnswerRule(temperature)
