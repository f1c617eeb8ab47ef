"""inspection.py: the listing of what is quantized, with the numbers of one artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx import numpy_helper
from tiny import KEPT, build_kept

from edge_resnet.artifact.folder import Artifact
from edge_resnet.compiler.derive import corrected_graph, tensorrt_graph
from edge_resnet.compiler.graph.placement import placement_of
from edge_resnet.compiler.inspection import quantization_of
from edge_resnet.core.errors import ConfigError


@pytest.fixture(scope="module")
def kept_int8(tmp_path_factory: pytest.TempPathFactory, smooth_images: Path) -> Artifact:
    """INT8 for batches up to 4, with corrections, an exact input and one node in high precision. Do not modify."""
    return build_kept(tmp_path_factory.mktemp("kept") / "a", smooth_images)


@pytest.mark.parametrize("name", ["plain", "kept"])
def test_the_listing_is_that_of_the_goldens(tiny_artifacts: dict[str, Artifact], kept_int8: Artifact, name: str) -> None:
    """Without the numbers in front of them, the lines are those of the placement, which the golden files hold."""
    artifact = kept_int8 if name == "kept" else tiny_artifacts["int8"]
    keep = frozenset(artifact.calibration().recipe.keep_high_precision)
    wanted = placement_of(corrected_graph(artifact), keep).lines()
    shown = quantization_of(artifact).lines()
    assert all(line.endswith(end) for line, end in zip(shown, wanted, strict=True))
    assert shown[0] == wanted[0]
    assert (f"{KEPT} : kept by the recipe" in shown) == (name == "kept")


def test_each_range_and_each_weights_scales_are_listed(kept_int8: Artifact) -> None:
    """Before a pair stands the table's amax, before a weight the smallest and largest scale that TensorRT reads."""
    lines = quantization_of(kept_int8).lines()
    amax = kept_int8.calibration().amax
    pairs = [line for line in lines if " -> " in line]
    assert len(pairs) > 10
    for line in pairs:
        tensor = line.split(" (range of ")[1].split(")")[0] if " (range of " in line else line.split()[1]
        assert float(line.split()[0]) == pytest.approx(amax[tensor], rel=1e-5)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensorrt_graph(kept_int8, "weak").graph.initializer}
    weights = [line for line in lines if line.endswith(" channels")]
    assert len(weights) > 5
    for line in weights:
        low, _, high, node, _, channels, _ = line.split()
        scales = stored[f"{node}.weight.scale"]
        assert (float(low), float(high)) == pytest.approx((scales.min(), scales.max()), rel=1e-3)
        assert int(channels) == len(scales)


def test_json_holds_the_same(kept_int8: Artifact) -> None:
    """The pairs with readers, reason and amax, the weights with their scales, and the rest with reasons."""
    document = json.loads(json.dumps(quantization_of(kept_int8).as_json()))
    shown = placement_of(corrected_graph(kept_int8), frozenset([KEPT]))
    assert document["pairs"] == len(document["activations"]) + len(document["weights"])
    assert [pair["tensor"] for pair in document["activations"]] == [pair.tensor for pair in shown.pairs]
    first = document["activations"][0]
    assert first == {"tensor": "shift", "range_of": "shift", "readers": [["conv1", 0]], "reason": "conv input", "amax": 127.0}
    assert all(0 < weight["scale_min"] <= weight["scale_max"] for weight in document["weights"])
    assert {"nodes": [KEPT], "reason": "kept by the recipe"} in document["high_precision"]
    assert document["activations_for_cpu"][-1]["readers"] == [["fc", 0]]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_float_artifact_has_no_listing(tiny_artifacts: dict[str, Artifact], precision: str) -> None:
    """Nothing in it is quantized: the error says so, and the hint what to build."""
    with pytest.raises(ConfigError, match=precision) as caught:
        quantization_of(tiny_artifacts[precision])
    assert "--int8" in caught.value.hint
