"""The offline pipeline: an artifact whole or not at all, the same from the same inputs, refused if it would mislead."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny import tiny_options

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import CALIBRATION, LABELS, MODEL, Artifact, open_artifact
from edge_resnet.compiler.derive import DERIVATIONS
from edge_resnet.core.errors import BuildError, CalibrationError, ConfigError, DataError, EdgeResnetError
from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
from edge_resnet.pipelines.build import BuildOptions, build
from edge_resnet.runtime.backend import open_backend


def _seeded_build(options: BuildOptions) -> Artifact:
    torch.manual_seed(0)
    return build(options)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_manifest_records_how_it_was_made(tiny_artifacts: dict[str, Artifact], precision: str) -> None:
    """Network, precision, export difference, recipe and tools are on record."""
    manifest = tiny_artifacts[precision].manifest
    assert (manifest.precision, manifest.model.name, manifest.model.weights) == (precision, "resnet8-cifar", "random")
    assert 0 <= manifest.export_max_abs < 1e-3
    assert manifest.tools["torch"].split("+")[0] == torch.__version__.split("+")[0]
    if precision == "int8":
        assert manifest.calibration == "32 images of smooth"
        assert manifest.recipe is not None
    else:
        assert manifest.calibration is None


def test_an_engine_for_this_machine_is_in_it(tiny_artifacts: dict[str, Artifact]) -> None:
    """An INT8 artifact opens right after the build, on this machine, without onnx."""
    with open_backend(tiny_artifacts["int8"]) as backend:
        assert backend.infer(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 10)


def test_every_precision_has_the_same_graph(tiny_artifacts: dict[str, Artifact]) -> None:
    """Every precision has the same FP32 graph as its source."""
    assert len({artifact.manifest.files[MODEL].sha256 for artifact in tiny_artifacts.values()}) == 1


def test_the_graph_is_what_the_design_says(tiny_artifacts: dict[str, Artifact]) -> None:
    """Opset 17, uint8 (N, 32, 32, 3) in, float32 (N, 10) out, the Cast first."""
    model = onnx.load(tiny_artifacts["fp32"].model_path)
    (image,), (logits,) = model.graph.input, model.graph.output
    assert [entry.version for entry in model.opset_import] == [17]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value or d.dim_param for d in image.type.tensor_type.shape.dim] == ["batch", 32, 32, 3]
    assert [d.dim_value or d.dim_param for d in logits.type.tensor_type.shape.dim] == ["batch", 10]
    assert model.graph.node[0].op_type == "Cast"


def test_the_same_inputs_give_the_same_source(tmp_path: Path, smooth_images: Path) -> None:
    """Graph, ranges and labels of two builds are equal to the byte."""
    first, second = (_seeded_build(tiny_options("int8", tmp_path / name, smooth_images)) for name in "ab")
    for name in (MODEL, CALIBRATION, LABELS):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    assert first.source_digest() == second.source_digest()


def test_another_seed_draws_other_images(tmp_path: Path, smooth_images: Path) -> None:
    """The recipe's seed decides which images are used."""
    options = tiny_options("int8", tmp_path / "a", smooth_images)
    first = _seeded_build(options)
    second = _seeded_build(replace(options, output=tmp_path / "b", recipe=QuantRecipe(images=32, seed=1)))
    assert first.calibration().images_digest != second.calibration().images_digest
    assert first.manifest.files[MODEL] == second.manifest.files[MODEL]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda o: replace(o, allow_random=False), CalibrationError),
        (lambda o: replace(o, calibration_data=None), CalibrationError),
        (lambda o: replace(o, recipe=None), CalibrationError),
        (lambda o: replace(o, calibration_data="nowhere"), DataError),
        (lambda o: replace(o, validation_data="val"), ConfigError),
        (lambda o: replace(o, validation_data="val", calibration_data=None, recipe=None, weights="default"), ConfigError),
        (lambda o: replace(o, validation_data="val", precision="fp32"), ConfigError),
        (lambda o: replace(o, max_drop=1.0, precision="fp16"), ConfigError),
        (lambda o: replace(o, labels=("one", "two")), ConfigError),
        (lambda o: replace(o, preprocess=Preprocess(resize=64, crop=64)), ConfigError),
        (lambda o: replace(o, weights="nowhere.pth"), EdgeResnetError),
        (lambda o: replace(o, backend="abacus"), ConfigError),
        (lambda o: replace(o, weights="default"), EdgeResnetError),
    ],
)
def test_what_cannot_be_built_leaves_nothing(
    tmp_path: Path, smooth_images: Path, change: Callable[[BuildOptions], BuildOptions], kind: type[Exception]
) -> None:
    """Each refusal is one of ours, with a hint or a cause in one line, and no file is left."""
    with pytest.raises(kind) as caught:
        build(change(tiny_options("int8", tmp_path / "out" / "x", smooth_images)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_an_unknown_backend_is_refused_before_anything_is_written(tmp_path: Path, smooth_images: Path) -> None:
    """Not after minutes of calibration: not even the folder's parent is made."""
    with pytest.raises(ConfigError, match="abacus"):
        build(replace(tiny_options("int8", tmp_path / "out" / "x", smooth_images), backend="abacus"))
    assert not (tmp_path / "out").exists()


def test_own_labels_need_not_name_the_calibration_folders(tmp_path: Path, smooth_images: Path) -> None:
    """Calibration needs no labels: folders with other names only balance the draw."""
    from PIL import Image

    for index, image in enumerate(np.load(smooth_images)["images"][:12]):
        folder = tmp_path / "set" / f"day{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    options = tiny_options("int8", tmp_path / "x", tmp_path / "set")
    model = ModelSpec("cifar", 8, classes=3, input_size=32)
    artifact = build(replace(options, model=model, labels=("ripe", "unripe", "rotten")))
    assert artifact.labels == ("ripe", "unripe", "rotten")


def _noise(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


def _flat(_: np.random.Generator) -> np.ndarray:
    return np.full((20, 32, 32, 3), 128, np.uint8)


@pytest.mark.parametrize("make", [_noise, _flat])
def test_images_that_are_none_are_refused(tmp_path: Path, make: Callable[[np.random.Generator], np.ndarray]) -> None:
    """Noise and flat colour have no ranges worth measuring; random weights alone are allowed here."""
    np.savez(tmp_path / "data.npz", images=make(np.random.default_rng(0)))
    torch.manual_seed(0)
    from safetensors.torch import save_file

    from edge_resnet.network import build_network

    options = tiny_options("int8", tmp_path / "x", tmp_path / "data.npz")
    save_file(build_network(options.model).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(CalibrationError):
        build(replace(options, weights=str(tmp_path / "w.safetensors"), allow_random=False))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("stage", ["export", "calibrate", "compile"])
def test_ctrl_c_leaves_nothing_or_the_whole_artifact(tmp_path: Path, smooth_images: Path, stage: str) -> None:
    """Interrupted in export or calibration: nothing is left; while the engine is compiled: the artifact without it."""

    def interrupt(name: str, done: int, total: int) -> None:
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tiny_options("int8", tmp_path / "out" / "x", smooth_images), progress=interrupt)
    left = list((tmp_path / "out").iterdir())
    assert [path.name for path in left] == (["x"] if stage == "compile" else [])
    for path in left:
        assert not list(open_artifact(path).folder.glob("engines/*"))


def test_an_engine_that_fails_costs_no_calibration(tmp_path: Path, smooth_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifact is kept, the error is the engine's, and its hint is the command that compiles again."""

    def fail(*_: object) -> None:
        raise BuildError("out of memory", hint="close other programs")

    monkeypatch.setattr("edge_resnet.compiler.derive.DERIVATIONS", dict.fromkeys(DERIVATIONS, fail))
    with pytest.raises(BuildError, match="out of memory") as caught:
        build(tiny_options("int8", tmp_path / "x", smooth_images))
    assert caught.value.hint.startswith("close other programs; ")
    assert f"edge-resnet compile {tmp_path / 'x'}" in caught.value.hint
    assert open_artifact(tmp_path / "x").manifest.precision == "int8"


def test_tuning_for_another_backend_is_refused_first(tmp_path: Path, smooth_images: Path) -> None:
    """The workspace belongs to TensorRT: another backend is refused before minutes of calibration."""
    options = replace(tiny_options("int8", tmp_path / "out" / "x", smooth_images), tuning=EngineTuning(512))
    with pytest.raises(ConfigError, match="workspace"):
        build(options)
    assert not (tmp_path / "out").exists()


def test_a_failed_forced_build_keeps_the_old_artifact(tmp_path: Path, smooth_images: Path) -> None:
    """--force replaces only when the new one is done."""
    options = tiny_options("fp32", tmp_path / "x", smooth_images)
    old = _seeded_build(options)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(replace(options, force=True), progress=interrupt)
    assert open_artifact(tmp_path / "x") == old
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
@pytest.mark.parametrize("kilobytes", [16, 200, 360])
def test_a_full_disk_leaves_nothing(tmp_path: Path, smooth_images: Path, kilobytes: int) -> None:
    """A disk that fills up while the graph or the calibration files are written: one line, nothing left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let tests mount a file system")
    try:
        with pytest.raises(BuildError, match="No space left") as caught:
            build(tiny_options("int8", disk / "x", smooth_images))
        assert "free some space" in caught.value.hint
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [(("cat", "dog"), 2, ("cat", "dog")), (None, 10, ("airplane", "automobile")), (None, 3, ("class 0", "class 1"))],
)
def test_labels(
    tmp_path: Path, smooth_images: Path, labels: tuple[str, ...] | None, classes: int, expected: tuple[str, ...]
) -> None:
    """The user's names, else the family's own, else numbers."""
    model = ModelSpec("cifar", 8, classes=classes, input_size=32)
    artifact = build(replace(tiny_options("fp32", tmp_path / "x", smooth_images), labels=labels, model=model))
    assert artifact.labels[:2] == expected
    assert len(artifact.labels) == classes


def test_the_calibration_sets_names(tmp_path: Path, smooth_images: Path) -> None:
    """A folder of class folders names the classes of a head of its size."""
    from PIL import Image

    images = np.load(smooth_images)["images"]
    for index, image in enumerate(images[:18]):
        folder = tmp_path / "set" / ("rotten", "ripe", "green")[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    options = tiny_options("int8", tmp_path / "x", tmp_path / "set")
    artifact = build(replace(options, model=ModelSpec("cifar", 8, classes=3, input_size=32)))
    assert artifact.labels == ("green", "ripe", "rotten")


def test_progress_names_every_stage(tmp_path: Path, smooth_images: Path) -> None:
    """Export, calibration and compilation are reported, each from nothing to its end."""
    calls: list[tuple[str, int, int]] = []
    build(tiny_options("int8", tmp_path / "x", smooth_images), progress=lambda *call: calls.append(call))
    for stage in ("export", "calibrate", "compile"):
        done = [call for call in calls if call[0] == stage]
        assert done[0][1] == 0
        assert done[-1][1] == done[-1][2]
