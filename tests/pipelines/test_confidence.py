"""A threshold in an artifact: written in one step, used by predict, and not taken over by another network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import as_trained

from edge_resnet.artifact import folder as folder_module
from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.core.errors import ArtifactError, BuildError, ConfigError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.images.imageset import ImageSet, from_arrays
from edge_resnet.pipelines.confidence import add_confidence, remove_confidence
from edge_resnet.pipelines.model import open_model
from edge_resnet.pipelines.requantize import requantize
from edge_resnet.quantization.int8 import Int8Options
from edge_resnet.runtime.backend import open_backend


@pytest.fixture(scope="module")
def images(tiny_artifacts: dict[str, Artifact]) -> ImageSet:
    """256 images that INT8 mostly classifies as labelled."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (256, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    with open_backend(tiny_artifacts["int8"], "onnxruntime") as network:
        labels = network.infer(pixels).argmax(axis=1)
    labels[rng.permutation(256)[:12]] = 9
    return from_arrays("labelled", pixels, labels)


@pytest.fixture(scope="module")
def ruled(tiny_artifacts: dict[str, Artifact], images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INT8 artifact with a threshold, not to be changed."""
    artifact = open_artifact(as_trained(tiny_artifacts["int8"], tmp_path_factory.mktemp("ruled") / "int8"))
    return add_confidence(artifact, images, 20, backend="onnxruntime").folder


@pytest.fixture
def own(ruled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(ruled, tmp_path / "own"))


def test_it_is_stored_beside_all_that_was_there(tiny_artifacts: dict[str, Artifact], ruled: Path) -> None:
    """Manifest and card change; every other file, the engines, and what says how the network was built stay."""
    before, after = tiny_artifacts["int8"], open_artifact(ruled)
    rule = after.manifest.confidence
    assert rule is not None
    assert rule.computation == "int8-cpu"
    assert after.manifest.schema_version == 3
    assert (after.manifest.created, after.manifest.tools) == (before.manifest.created, before.manifest.tools)
    assert after.source_digest() == before.source_digest()
    assert f"below {rule.threshold:.4g} is `unknown`" in (ruled / "README.md").read_text(encoding="utf-8")
    names = {path.relative_to(before.folder) for path in before.folder.rglob("*")}
    assert names <= {path.relative_to(ruled) for path in ruled.rglob("*")}


def test_a_failure_leaves_the_old_one(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the new manifest cannot be written, the artifact is as it was, to the byte, and nothing lies beside it."""
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}

    def full(path: Path, record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_json", full)
    with pytest.raises(BuildError, match="No space left") as error:
        remove_confidence(open_artifact(own))
    assert "the artifact is unchanged" in (error.value.hint or "")
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    assert [path.name for path in own.parent.iterdir()] == ["own"]


def test_predict_uses_it(ruled: Path, images: ImageSet) -> None:
    """The answer is unknown below the threshold and the best class from there on; 0 turns it off; the logits are raw."""
    with open_model(ruled, backend="onnxruntime") as model, open_model(ruled, backend="onnxruntime", min_confidence=0) as never:
        rule = model.artifact.manifest.confidence
        assert rule is not None
        found = list(model.predict_many(images))
        counts = [result.answer.class_index >= 0 for result in found]
        assert sum(counts) == rule.answered
        for result in found:
            is_known = result.top[0].probability >= rule.threshold
            assert result.answer.label == (result.top[0].label if is_known else "unknown")
        assert all(result.answer == result.top[0] for result in never.predict_many(images))
        raw = model.logits(images.load(0))[0].astype(np.float64) / rule.temperature
        powers = np.exp(raw - raw.max())
        assert found[0].top[0].probability == pytest.approx((powers / powers.sum()).max(), rel=1e-4)


def test_it_is_removed(own: Path) -> None:
    """Without it, the answer is the best class again, and the card says that nothing was compared."""
    made = remove_confidence(open_artifact(own))
    assert made.manifest.confidence is None
    assert "were not compared" in (own / "README.md").read_text(encoding="utf-8")


def test_another_network_does_not_take_it_over(
    ruled: Path, tmp_path: Path, smooth_images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """INT8 that is calibrated anew has no threshold, and this is said."""
    options = Int8Options(str(smooth_images), QuantRecipe(images=32))
    made = requantize(open_artifact(ruled), options, tmp_path / "again", backend="onnxruntime")
    assert made.manifest.confidence is None
    assert "threshold for unknown is not taken over" in caplog.text


def test_one_of_another_graph_is_refused(own: Path) -> None:
    """A manifest whose threshold belongs to another source is not opened."""
    path = own / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["confidence"]["source"] = "0" * 64
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match="measured on another graph"):
        open_artifact(own)


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("threshold", 1.0), ("threshold", "0.5"), ("images", 1.5)])
def test_a_damaged_one_is_refused(own: Path, field: str, value: object) -> None:
    """A temperature of 0, a threshold of 1, and values of another type are errors that name the field."""
    path = own / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["confidence"][field] = value
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match="confidence"):
        open_artifact(own)


def test_an_older_artifact_opens(own: Path) -> None:
    """One of schema 2, without the field, has no threshold."""
    path = own / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["confidence"]
    manifest["schema_version"] = 2
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert open_artifact(own).manifest.confidence is None


def test_random_weights_are_refused(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """What was never trained has no probabilities worth trusting."""
    with pytest.raises(ConfigError, match="random weights"):
        add_confidence(tiny_artifacts["int8"], images, 20)
