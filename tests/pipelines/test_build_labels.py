"""The labels of an artifact: the user's, the family's or the calibration set's, and what is guessed is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported import image_batch
from safetensors.torch import save_file
from tiny import tiny_options

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import Preprocess
from edge_resnet.images import datasets
from edge_resnet.images.calibration import CalibrationImages, prepare_calibration_images
from edge_resnet.images.imageset import from_arrays
from edge_resnet.network import build_network
from edge_resnet.network.zoo import CIFAR10_NAMES
from edge_resnet.pipelines.build import BuildOptions, build, labels_for
from edge_resnet.quantization.int8 import Int8Options, open_budget
from edge_resnet.quantization.recipes import load_recipe, recipe_for


def calibration(names: tuple[str, ...], folder: Path) -> CalibrationImages:
    images = from_arrays("photos", image_batch(4, 8), np.arange(4) % max(len(names), 1), names)
    return prepare_calibration_images(images, Preprocess(resize=8, crop=8), allow_noise=True, folder=folder)


def options(classes: int, folder: Path, labels: tuple[str, ...] | None = None) -> BuildOptions:
    usual = tiny_options("fp32", folder / "x", folder)
    return replace(usual, model=replace(usual.model, classes=classes), labels=labels)


@pytest.mark.parametrize(
    ("classes", "given", "theirs", "taken", "said"),
    [
        (3, ("x", "y", "z"), ("a", "b", "c"), ("x", "y", "z"), ""),
        (3, None, ("a", "b", "c"), ("a", "b", "c"), "the labels are the classes of photos: a, b, c; --labels gives others"),
        (3, None, ("a", "b"), ("class 0", "class 1", "class 2"), ""),
        (10, None, (), CIFAR10_NAMES, ""),
        (10, None, tuple(name.upper() for name in CIFAR10_NAMES), CIFAR10_NAMES, ""),
        (10, None, tuple("0123456789"), CIFAR10_NAMES, "the classes of photos are 0, 1, 2, 3, 4 and 5 more; --labels"),
    ],
)
def test_labels_that_are_guessed_are_said(
    classes: int,
    given: tuple[str, ...] | None,
    theirs: tuple[str, ...],
    taken: tuple[str, ...],
    said: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Names that the user gave are silent; those of a calibration set, and the family's where that set has others, are not."""
    with calibration(theirs, tmp_path) as images:
        assert labels_for(options(classes, tmp_path, given), images) == taken
    assert bool(caplog.records) == bool(said)
    assert said in caplog.text


def test_a_budget_is_not_measured_on_other_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """--max-drop on images whose classes are not the network's would pass on any INT8."""
    digits = tuple("0123456789")
    images = from_arrays("digits", image_batch(10, 8), np.arange(10), digits)
    monkeypatch.setattr(datasets, "open_data", lambda *_, **__: images)
    model = tiny_options("fp32", Path("x"), Path("x")).model
    wanted = Int8Options("digits", load_recipe(recipe_for("cifar")).recipe, "digits", 1.0)
    with pytest.raises(DataError, match="has '0' where the network has 'airplane'"):
        open_budget(wanted, model, CIFAR10_NAMES)
    assert open_budget(wanted, model, digits) is not None


def test_labels_that_were_counted_wrongly(tmp_path: Path) -> None:
    """Nine labels for weights of ten classes are a fault of the labels, and nothing is written."""
    chosen = tiny_options("fp32", tmp_path / "out", tmp_path)
    weights = tmp_path / "ten.safetensors"
    save_file(build_network(chosen.model).state_dict(), weights)
    nine = replace(chosen, model=replace(chosen.model, classes=9), labels=CIFAR10_NAMES[:9], weights=str(weights))
    with pytest.raises(ConfigError, match="9 labels for weights of 10 classes") as caught:
        build(nine)
    assert "--labels takes a line per class" in caught.value.hint
    assert not nine.output.exists()
