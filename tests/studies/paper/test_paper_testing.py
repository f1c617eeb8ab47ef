"""Ten crops and several scales against one crop, and the table of complexity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import ModelSpec
from edge_resnet.images.preprocess import preprocess
from edge_resnet.studies.paper import ExperimentRequest, run_experiment
from edge_resnet.studies.paper import tally as module
from edge_resnet.studies.paper.crops import at_scale
from edge_resnet.studies.paper.networks import open_networks, probabilities

NET = ModelSpec("imagenet", 18, "B", classes=3, input_size=32)
Save = Callable[..., Path]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of 40 x 52 pixels in three classes."""
    path = tmp_path_factory.mktemp("photos") / "photos.npz"
    images = np.random.default_rng(0).integers(0, 256, (12, 40, 52, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(12) % 3)
    return path


@pytest.fixture
def ask(photos: Path, weights: Save, tmp_path: Path) -> Callable[..., ExperimentRequest]:
    """Request one of the two experiments on the photos with ResNet-18 at 32 pixels."""

    def make(experiment: str, **changed: Any) -> ExperimentRequest:
        asked = {"family": "imagenet", "data": str(photos), "classes": 3, "input_size": 32, "weights": (f"18={weights(NET)}",)}
        return ExperimentRequest(experiment, tmp_path / "out", **{**asked, **changed})

    return make


def test_ten_crops_beside_one(ask: Callable[..., ExperimentRequest]) -> None:
    """Both schemes use the same images; the error on one crop is that of the network on the single crop."""
    request = ask("tencrop")
    result, _ = run_experiment(request)
    errors = result.data["networks"][0]["errors"]
    assert list(errors) == ["one crop", "ten crops"]
    assert {rate["images"] for rate in errors.values()} == {12}
    network = open_networks(request.weights, NET)[0].module
    images = np.load(request.data)["images"]
    single = np.stack([preprocess(image, request.preprocess) for image in images])
    wrong = probabilities(network, single, request.preprocess).argmax(axis=1) != np.arange(12) % 3
    assert errors["one crop"]["top1"] == pytest.approx(100 * wrong.mean())
    assert {item.what for item in result.differences} >= {"images", "weights", "crop, pixels"}


def test_scales_beside_one_crop(ask: Callable[..., ExperimentRequest]) -> None:
    """A row per scale and one for all; a scale's error is that of the network on whole images and their mirror images."""
    request = ask("multiscale", scales=(40, 64))
    result, _ = run_experiment(request)
    errors = result.data["networks"][0]["errors"]
    assert list(errors) == ["one crop", "whole, 40", "whole, 64", "2 scales"]
    network = open_networks(request.weights, NET)[0].module
    wrong = []
    for place, image in enumerate(np.load(request.data)["images"]):
        whole = at_scale(image, 64)
        answers = probabilities(network, np.stack([whole, whole[:, ::-1]]), request.preprocess)
        wrong.append(answers.mean(axis=0).argmax() != place % 3)
    assert errors["whole, 64"]["top1"] == pytest.approx(100 * np.mean(wrong))


def test_flips_can_be_left_out(ask: Callable[..., ExperimentRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mirror images each scale is one view, and the result says so."""
    sizes: list[int] = []
    real = module.probabilities

    def counting(network: Any, views: Any, spec: Any) -> Any:
        sizes.append(len(views))
        return real(network, views, spec)

    monkeypatch.setattr(module, "probabilities", counting)
    result, _ = run_experiment(ask("multiscale", scales=(40,), flips=False, test_images=3))
    assert set(sizes) == {1}
    assert ("mirror images", "left out") in {(item.what, item.here) for item in result.differences}


@pytest.mark.parametrize("scales", [(16, 64), (64, 64), (9000,)])
def test_scales_that_cannot_be(ask: Callable[..., ExperimentRequest], scales: tuple[int, ...]) -> None:
    """Too small for five halvings, given twice, too large: ConfigError, and no folder."""
    request = ask("multiscale", scales=scales)
    with pytest.raises(ConfigError, match="scales"):
        run_experiment(request)
    assert not request.output.exists()


def test_cifar_networks_are_refused(ask: Callable[..., ExperimentRequest]) -> None:
    """Ten crops and scales are for ImageNet networks only, as in the paper."""
    for experiment in ("tencrop", "multiscale"):
        with pytest.raises(ConfigError, match=experiment):
            run_experiment(ask(experiment, family="cifar"))


def test_data_that_do_not_fit(ask: Callable[..., ExperimentRequest], tmp_path: Path) -> None:
    """Images without labels, and labels of another network."""
    bare = tmp_path / "bare.npz"
    np.savez(bare, images=np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match="no labels"):
        run_experiment(ask("tencrop", data=str(bare)))
    many = tmp_path / "many.npz"
    np.savez(many, images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4))
    with pytest.raises(DataError, match="class 3"):
        run_experiment(ask("tencrop", data=str(many)))


def test_interrupted_in_the_middle(ask: Callable[..., ExperimentRequest]) -> None:
    """Ctrl-C keeps the images so far and marks the result as interrupted."""

    def stop(at: int) -> Callable[[str, int, int], None]:
        def progress(stage: str, done: int, total: int) -> None:
            if done >= at:
                raise KeyboardInterrupt

        return progress

    result, page = run_experiment(ask("tencrop"), progress=stop(5))
    assert result.interrupted
    assert result.data["networks"][0]["errors"]["ten crops"]["images"] == 5
    assert "Incomplete:" in page.read_text(encoding="utf-8")


def test_the_papers_figures_stand_beside(ask: Callable[..., ExperimentRequest], weights: Save) -> None:
    """A depth in tables 3 and 4 gets their errors; other scales than the paper's get none."""
    fifty = ModelSpec("imagenet", 50, "B", classes=3, input_size=32)
    named = (f"50={weights(fifty)}",)
    rows = run_experiment(ask("tencrop", weights=named, test_images=2))[0].tables[0].as_dicts()
    assert [row["paper"] for row in rows] == ["24.70 / 7.80 (README of the authors)", "22.85 / 6.71"]
    again = run_experiment(ask("multiscale", weights=named, test_images=2, scales=(40, 64)), force=True)[0]
    assert {row["paper"] for row in again.tables[0].as_dicts()} == {None}


@pytest.mark.slow
def test_complexity_is_measured(tmp_path: Path) -> None:
    """Parameters agree with table 6 to its last digit; multiply-adds with the paper's stride agree with table 1 to 0.1 · 10⁹."""
    result, page = run_experiment(ExperimentRequest("complexity", tmp_path / "out"))
    imagenet, cifar = (table.as_dicts() for table in result.tables)
    assert all(abs(float(str(row["gmacs_paper_stride"])) - float(str(row["paper_gflops"]))) < 0.1 for row in imagenet)
    assert all(abs(float(str(row["mparams"])) - float(str(row["paper_mparams"]))) < 0.05 for row in cifar)
    assert "The parameters agree with table 6 to its last digit." in result.verdicts
    assert all(one["parameters"] == one["plain_parameters"] for one in result.data["networks"] if "cifar" in one["network"])
    assert "VGG-16" in page.read_text(encoding="utf-8")


def test_unknown_experiments_and_resuming_without_training(tmp_path: Path) -> None:
    """An unknown name lists the known ones; an experiment that trains nothing cannot be resumed."""
    with pytest.raises(ConfigError, match="'widths'") as unknown:
        run_experiment(ExperimentRequest("widths", tmp_path / "out"))
    assert "degradation" in unknown.value.hint
    with pytest.raises(ConfigError, match="trains nothing"):
        run_experiment(ExperimentRequest("complexity", tmp_path / "out"), resume=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong", [{"images": 0}, {"test_images": -1}, {"held_out": 0.0}, {"held_out": 1.0}, {"seed": -1}, {"depths": (20, 20)}]
)
def test_requests_that_make_no_sense(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A request is validated when it is created."""
    with pytest.raises(ConfigError):
        ExperimentRequest("complexity", tmp_path, **wrong)
