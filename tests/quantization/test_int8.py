"""int8.py: an INT8 artifact from any artifact's graph, its budget in the manifest, and what is refused in advance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_options

from edge_resnet.artifact.folder import CALIBRATION, CORRECTIONS, MODEL, Artifact, open_artifact
from edge_resnet.compiler.graph.corrections import read_corrections
from edge_resnet.core.errors import BudgetError, CalibrationError, ConfigError, DataError
from edge_resnet.core.records import Preprocess, QuantRecipe
from edge_resnet.pipelines.build import build
from edge_resnet.pipelines.requantize import requantize
from edge_resnet.quantization.int8 import Int8Options, open_budget, open_calibration
from edge_resnet.runtime.backend import open_backend

RECIPE = QuantRecipe(method="mse", images=32, correction="learned", epochs=1)


def options(images: Path, **changes: object) -> Int8Options:
    """INT8 on the shared images, of a network with random weights."""
    return Int8Options(**{"data": str(images), "recipe": RECIPE, "allow_random": True, **changes})  # type: ignore[arg-type]


def test_int8_is_made_of_an_fp32_artifact(tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """Graph, labels and preprocessing are those of the source; ranges and corrections are new; every backend variant opens."""
    source = tiny_artifacts["fp32"]
    made = requantize(source, options(smooth_images), tmp_path / "int8")
    assert made.manifest.precision == "int8"
    assert made.manifest.preprocess == source.manifest.preprocess
    assert made.manifest.files[MODEL] == source.manifest.files[MODEL]
    assert made.labels == source.labels
    assert {CALIBRATION, CORRECTIONS} <= made.manifest.files.keys()
    assert read_corrections(made) is not None
    with open_backend(made) as backend, open_backend(source) as reference:
        images = np.load(smooth_images)["images"][:4, :32, :32]
        images = np.ascontiguousarray(images)
        assert np.abs(backend.infer(images) - reference.infer(images)).max() < 0.2 * np.abs(reference.infer(images)).max()


def test_the_source_is_never_overwritten(tiny_int8: Path, smooth_images: Path) -> None:
    """The folder that is read is never written, not even with force."""
    artifact = open_artifact(tiny_int8)
    with pytest.raises(ConfigError, match="that is read"):
        requantize(artifact, options(smooth_images), tiny_int8, force=True)
    open_artifact(tiny_int8)


def test_a_budget_goes_into_the_manifest(tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """The manifest that is read back contains measurement, interval and accuracy."""
    wanted = options(smooth_images, validation=str(smooth_images), max_drop=50.0)
    made = open_artifact(requantize(tiny_artifacts["fp32"], wanted, tmp_path / "x").folder)
    budget = made.manifest.budget
    assert budget is not None
    assert budget.images == 64
    assert budget.drop_ci95[0] <= budget.drop <= budget.drop_ci95[1]
    assert made.manifest.accuracy == {"fp32_top1": budget.fp32_top1, "int8_top1": budget.int8_top1}


def test_a_budget_out_of_reach_writes_nothing(
    tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missed budget is a BudgetError with exit code 3; no artifact and no temporary file is left."""
    from edge_resnet.quantization import int8

    def unreachable(*_: object, **__: object) -> object:
        raise BudgetError("out of reach")

    monkeypatch.setattr(int8, "make_int8", unreachable)
    with pytest.raises(BudgetError) as caught:
        requantize(tiny_artifacts["fp32"], options(smooth_images), tmp_path / "out" / "x")
    assert caught.value.exit_code == 3
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"max_drop": 0.5}, ConfigError, "labelled images"),
        ({"validation": "val"}, ConfigError, "with an accuracy budget"),
        ({"validation": "val", "max_drop": -1.0}, ConfigError, r"0\.\.100"),
        ({"validation": "val", "max_drop": float("nan")}, ConfigError, r"0\.\.100"),
    ],
)
def test_half_a_budget_is_refused(smooth_images: Path, changes: dict[str, object], kind: type[Exception], text: str) -> None:
    """Budget and labelled images need each other, and the budget must be a number of points."""
    with pytest.raises(kind, match=text):
        options(smooth_images, **changes)


def test_random_weights_and_noise_are_refused(tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """As in build: neither gives meaningful ranges."""
    with pytest.raises(CalibrationError, match="random weights"):
        requantize(tiny_artifacts["fp32"], options(smooth_images, allow_random=False), tmp_path / "x")
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=noise)
    with pytest.raises(CalibrationError, match="noise"):
        open_calibration(Int8Options(str(tmp_path / "noise.npz"), RECIPE), Preprocess(32, 32))


def test_validation_without_labels_is_refused(smooth_images: Path, tmp_path: Path, tiny_artifacts: dict[str, Artifact]) -> None:
    """Unlabelled images and labels of another network are refused."""
    np.savez(tmp_path / "bare.npz", images=np.load(smooth_images)["images"])
    model = tiny_artifacts["fp32"].manifest.model
    with pytest.raises(DataError, match="no labels"):
        open_budget(options(smooth_images, validation=str(tmp_path / "bare.npz"), max_drop=1.0), model, None)
    np.savez(tmp_path / "other.npz", images=np.load(smooth_images)["images"], labels=np.full(64, 10))
    with pytest.raises(DataError, match="class 10"):
        open_budget(options(smooth_images, validation=str(tmp_path / "other.npz"), max_drop=1.0), model, None)
    assert open_budget(options(smooth_images), model, None) is None


def test_build_and_requantize_make_the_same(tmp_path: Path, smooth_images: Path, tiny_artifacts: dict[str, Artifact]) -> None:
    """The same graph and images give the same ranges with either command."""
    built = tiny_artifacts["int8"]
    again = requantize(built, options(smooth_images, recipe=built.calibration().recipe), tmp_path / "again")
    assert (again.folder / CALIBRATION).read_bytes() == (built.folder / CALIBRATION).read_bytes()


def test_a_learned_build_is_reproducible(tmp_path: Path, smooth_images: Path) -> None:
    """Two builds with the same weights and seed have the same source digest, corrections included."""
    import torch

    folders = []
    for name in "ab":
        torch.manual_seed(0)
        wanted = tiny_options("int8", tmp_path / name, smooth_images)
        folders.append(build(type(wanted)(**{**vars(wanted), "recipe": RECIPE})))
    assert folders[0].source_digest() == folders[1].source_digest()
