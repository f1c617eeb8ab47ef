"""The model card: what a manifest says, for people, and nothing that a stranger's text could do in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_resnet.artifact.card import described, model_card
from edge_resnet.artifact.folder import CARD, Artifact, open_artifact
from edge_resnet.artifact.schema import BudgetReport, Manifest, WeightsOrigin
from edge_resnet.core.records import BatchProfile, Layout, ModelSpec, Preprocess, QuantRecipe

ORIGIN = WeightsOrigin("hf://a/b/model.safetensors", "0" * 40, "1" * 64, "config.json (timm), mean as asked for", "apache-2.0")
MANIFEST = Manifest(
    2, ModelSpec(weights="sha256:" + "1" * 64), Preprocess(235, 224, "bicubic"), "int8", BatchProfile(), QuantRecipe(),
    "512 images of photos", None, 1e-5, "", {}, {}, origin=ORIGIN,
)  # fmt: skip


def test_what_a_card_says() -> None:
    """Weights with their commit and license, preprocessing and who said it, calibration, and that accuracy was not measured."""
    card = model_card(MANIFEST)
    for text in ("# resnet50, int8", f"model.safetensors@{'0' * 40}", "license apache-2.0", "resize 235 (bicubic), crop 224",
                 "config.json (timm), mean as asked for", "512 images of photos", "Not measured"):  # fmt: skip
        assert text in card
    assert described(MANIFEST) in card


def test_accuracy_with_its_interval() -> None:
    """A budget's measurements stand with images, interval and p-value; another accuracy says that it has none."""
    budget = BudgetReport(0.5, 500, 76.0, 75.8, 0.2, (-0.4, 0.8), 0.7, (), ())
    card = model_card(replace(MANIFEST, budget=budget, warnings=("layer1 is clipped",)))
    assert "On 500 labelled images: FP32 76.00 %, INT8 75.80 % top-1; drop 0.20 points, 95 % interval -0.40 to 0.80" in card
    assert "The build warned: layer1 is clipped" in card
    assert "no interval was kept" in model_card(replace(MANIFEST, accuracy={"int8_top1": 91.0}))


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "![x](http://127.0.0.1/x)", "\x1b[2J\u202e"])
def test_a_strangers_text_stays_text(text: str) -> None:
    """HTML, images and control characters of a license or a data set's name are shown as they are written."""
    card = model_card(replace(MANIFEST, origin=replace(ORIGIN, license=text), calibration=f"1 images of {text}"))
    assert text not in card
    assert "\x1b" not in card
    assert "<script" not in card.replace("\\<", "")


def test_every_artifact_has_one(tiny_artifacts: dict[str, Artifact]) -> None:
    """The card is a file of the manifest, so that a change of it is noticed."""
    artifact = tiny_artifacts["int8"]
    assert CARD in artifact.manifest.files
    assert (artifact.folder / CARD).read_text(encoding="utf-8").startswith("# resnet8-cifar, int8")


def test_an_artifact_of_an_older_version_opens(tiny_int8: Path) -> None:
    """Without a card, an origin and a layout, as they were written before these existed."""
    path = tiny_int8 / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["origin"], manifest["model"]["layout"], manifest["files"][CARD]
    (tiny_int8 / CARD).unlink()
    path.write_text(json.dumps(manifest), encoding="utf-8")
    artifact = open_artifact(tiny_int8)
    assert artifact.manifest.origin is None
    assert artifact.manifest.model.layout == Layout()
    assert "resize 32 (bilinear)" in model_card(artifact.manifest)
