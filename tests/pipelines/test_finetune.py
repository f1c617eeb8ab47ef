"""finetune.py and what it calls: the result is an ordinary artifact of the trained network; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import graph, image_batch, small
from onnx import numpy_helper
from torch.nn import functional as F

from edge_resnet.artifact.folder import CALIBRATION, MODEL, Artifact, open_artifact, write_json, write_manifest
from edge_resnet.compiler.derive import compile_engine, tensorrt_graph
from edge_resnet.compiler.graph.corrections import apply, read_corrections
from edge_resnet.core.errors import BudgetError, CalibrationError, ConfigError, DataError, EdgeResnetError, ExportError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.images.imageset import open_images
from edge_resnet.measurement.accuracy import evaluate
from edge_resnet.pipelines.demo import DemoResult
from edge_resnet.pipelines.finetune import DEFAULTS, QatOptions, fine_tune, open_train_data
from edge_resnet.pipelines.requantize import requantize
from edge_resnet.quantization.int8 import Int8Options
from edge_resnet.quantization.pipeline import Int8
from edge_resnet.quantization.qat import FakeQuantized
from edge_resnet.quantization.qat.distil import Distilled
from edge_resnet.quantization.qat.evaluate import DropCheck, QatAccuracy, check_drop
from edge_resnet.quantization.qat.writeback import corrections_of, verify_int8
from edge_resnet.runtime.backend import open_backend

RECIPE = QuantRecipe(method="mse", images=32)
QUICK = replace(DEFAULTS, epochs=1, batch=16, rate=0.002, augment="none")


def options_for(images: Path, **changes: object) -> QatOptions:
    """A pass over the shared images, on a network with random weights."""
    values = {"data": str(images), "recipe": RECIPE, "training": QUICK, "allow_random": True, **changes}
    return QatOptions(**values)  # type: ignore[arg-type]


def replaced(source: Artifact, graph: onnx.ModelProto, folder: Path) -> Artifact:
    """An FP32 artifact like ``source`` with another graph."""
    folder.mkdir(parents=True)
    for name in source.manifest.files:
        (folder / name).write_bytes((source.folder / name).read_bytes())
    onnx.save(graph, folder / MODEL)
    write_manifest(folder, source.manifest)
    return open_artifact(folder)


@pytest.fixture(scope="module")
def sources(
    tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    """The tiny network with batch norms as after training, FP32 and INT8 with plain ranges, and an FP16 artifact."""
    folder = tmp_path_factory.mktemp("sources")
    options = Int8Options(str(smooth_images), RECIPE, allow_random=True)
    whole = replaced(tiny_artifacts["fp32"], graph(small("A", input_size=32)), folder / "fp32")
    return {"fp32": whole, "int8": requantize(whole, options, folder / "int8"), "fp16": tiny_artifacts["fp16"]}


@pytest.fixture(scope="module")
def broken(demonstration: tuple[DemoResult, Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """FP32: the demonstration's eight layers, trained on the digits, with four channels of the last block scaled by 150.

    The function is the same; the step at which the average pool reads is not.
    """
    trained = open_artifact(Path(demonstration[0].outcomes["fp32"].folder))
    model = onnx.load(trained.folder / MODEL)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in ("layer3.0.conv2.weight", "layer3.0.conv2.bias", "fc.weight"):
        value = np.array(numpy_helper.to_array(constants[name]))
        if name == "fc.weight":
            value[:, :4] /= 150
        else:
            value[:4] *= 150
        constants[name].CopyFrom(numpy_helper.from_array(value, name))
    return replaced(trained, model, tmp_path_factory.mktemp("broken") / "fp32")


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_it_makes_an_ordinary_artifact(sources: dict[str, Artifact], smooth_images: Path, tmp_path: Path, precision: str) -> None:
    """It opens, evaluates, simulates and derives TensorRT's form; its FP32 graph is the source's; the training is recorded."""
    source = sources[precision]
    tuned = fine_tune(source, options_for(smooth_images, validation=str(smooth_images)), tmp_path / "out")
    made = open_artifact(tmp_path / "out")
    assert made.manifest.precision == "int8"
    assert made.manifest.files[MODEL] == source.manifest.files[MODEL]
    assert made.source_digest() != source.source_digest()
    table = made.calibration()
    assert table.qat is not None
    assert (table.qat.source, table.qat.images, table.qat.steps) == (source.source_digest(), 64, 4)
    assert table.qat.difference < 5e-3
    assert "quantization-aware" in (made.manifest.calibration or "")
    images = open_images(smooth_images)
    compile_engine(made, "onnxruntime", "simulated")
    found = evaluate(made, images, simulate=True)
    assert tuned.accuracy is not None
    assert found.top1 == pytest.approx(tuned.accuracy.int8_top1)
    assert found.fp32_top1 == pytest.approx(tuned.accuracy.fp32_top1)
    assert made.manifest.accuracy == {"fp32_top1": found.fp32_top1, "int8_top1": found.top1}
    with open_backend(made) as backend:
        assert backend.infer(image_batch(2, 32)).shape == (2, 10)
    assert any(node.op_type == "QuantizeLinear" for node in tensorrt_graph(made, "strong").graph.node)


def test_what_was_trained_is_what_is_written(sources: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """Read back, the artifact gives a network with the weights, biases, scales and ranges of the one that was trained."""
    source = sources["int8"]
    made = fine_tune(source, options_for(smooth_images), tmp_path / "out").artifact
    model, corrections = onnx.load(made.model_path), read_corrections(made)
    network = FakeQuantized(model, made.calibration(), corrections)
    again = corrections_of(network, exact_input=False)
    assert corrections is not None
    for kind in ("integers", "scales", "floats", "biases"):
        mine, theirs = getattr(corrections, kind), getattr(again, kind)
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name])
    old = FakeQuantized(onnx.load(source.model_path), source.calibration(), read_corrections(source))
    moved = [name for name in network.quantized if not torch.equal(network.layer(name).weight(), old.layer(name).weight())]
    assert set(moved) == {name for name in network.quantized if not network.layer(name).fixed}
    assert network.amax() != old.amax()
    assert apply(model, corrections).SerializeToString() != model.SerializeToString()


def test_a_seed_repeats(sources: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """The same seed gives the same source digest, another seed another."""
    digests = []
    for place, seed in enumerate((0, 0, 1)):
        options = options_for(smooth_images, training=replace(QUICK, seed=seed, max_steps=2))
        digests.append(fine_tune(sources["int8"], options, tmp_path / str(place)).artifact.source_digest())
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow
def test_it_recovers_what_max_drop_could_not(broken: Artifact, tmp_path: Path) -> None:
    """PTQ cannot bring INT8 within a point of FP32 on the held-out digits, and ends with exit code 3; training can."""
    gate = Int8Options("digits", RECIPE, validation="digits", max_drop=1.0)
    with pytest.raises(BudgetError) as caught:
        requantize(broken, gate, tmp_path / "gated")
    assert caught.value.exit_code == 3
    training = replace(DEFAULTS, epochs=4, batch=64, augment="none")
    tuned = fine_tune(broken, options_for(Path("digits"), max_drop=1.0, training=training), tmp_path / "out")
    assert tuned.accuracy is not None
    assert tuned.accuracy.fp32_top1 - tuned.accuracy.before_top1 > 1
    assert tuned.missed is None, tuned.missed
    budget = open_artifact(tmp_path / "out").manifest.budget
    assert budget is not None
    assert budget.drop <= 1
    assert budget.kept == ()


def test_a_missed_budget_is_reported_and_the_artifact_kept(broken: Artifact, tmp_path: Path) -> None:
    """One tiny step is not enough: exit code 3 with a hint, and the artifact is written without a budget."""
    training = replace(QUICK, max_steps=1, rate=1e-6)
    tuned = fine_tune(broken, options_for(Path("digits"), max_drop=0.0, training=training), tmp_path / "out")
    assert tuned.missed is not None
    assert tuned.missed.exit_code == 3
    assert "continue the training" in tuned.missed.hint
    assert open_artifact(tmp_path / "out").manifest.budget is None


def test_a_met_budget_is_in_the_manifest(sources: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """With its interval, and no layer kept for it."""
    options = options_for(smooth_images, validation=str(smooth_images), max_drop=100.0)
    tuned = fine_tune(sources["int8"], options, tmp_path / "out")
    assert tuned.missed is None
    budget = open_artifact(tmp_path / "out").manifest.budget
    assert budget is not None
    assert (budget.max_drop, budget.images, budget.kept) == (100.0, 64, ())


def test_a_teacher_adds_its_gradient_and_nothing_else() -> None:
    """The gradient through the logits is that of (1 - share) * loss + share * KL; the logits are the student's."""
    torch.manual_seed(0)
    student, teacher = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    images, labels = torch.randn(7, 5), torch.randint(3, (7,))
    both = Distilled(student, teacher, 0.3).train()
    logits = both(images)
    assert torch.equal(logits, student(images))
    F.cross_entropy(logits, labels).backward()
    found = student.weight.grad.clone()  # type: ignore[union-attr]
    student.zero_grad()
    plain = student(images)
    divergence = F.kl_div(plain.log_softmax(1), teacher(images).softmax(1).detach(), reduction="batchmean")
    (0.7 * F.cross_entropy(plain, labels) + 0.3 * divergence).backward()
    torch.testing.assert_close(found, student.weight.grad)
    assert teacher.weight.grad is None
    assert torch.equal(both.eval()(images), student(images))


def test_another_graph_than_was_trained_is_refused(sources: dict[str, Artifact]) -> None:
    """The check before writing can fail: wider ranges are detected."""
    source = sources["int8"]
    model, table = onnx.load(source.model_path), source.calibration()
    network = FakeQuantized(model, table, read_corrections(source))
    corrections = corrections_of(network, exact_input=False)
    shown = [image_batch(8, 32)]
    assert verify_int8(network, model, Int8(table, corrections), shown, source.manifest.preprocess) < 5e-3
    wide = replace(table, amax={name: value * 30 for name, value in table.amax.items()})
    with pytest.raises(ExportError, match="does not compute"):
        verify_int8(network, model, Int8(wide, corrections), shown, source.manifest.preprocess)


def test_fp16_random_weights_and_its_own_folder_are_refused(
    sources: dict[str, Artifact], smooth_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before any training, with a hint, and nothing is written."""
    with pytest.raises(ConfigError, match="is FP16") as caught:
        fine_tune(sources["fp16"], options_for(smooth_images), tmp_path / "out")
    assert "an INT8 artifact" in caught.value.hint
    with pytest.raises(CalibrationError, match="random weights"):
        fine_tune(sources["int8"], options_for(smooth_images, allow_random=False), tmp_path / "out")
    with pytest.raises(ConfigError, match="that is read"):
        fine_tune(sources["int8"], options_for(smooth_images), sources["int8"].folder, force=True)
    with pytest.raises(ConfigError, match="labelled images"):
        fine_tune(sources["int8"], options_for(smooth_images, max_drop=1.0), tmp_path / "out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        fine_tune(sources["int8"], options_for(smooth_images), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_writes_nothing(sources: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """An absurd rate ends with an error that names the option, and no artifact."""
    options = options_for(smooth_images, training=replace(QUICK, rate=1e30, epochs=2))
    with pytest.raises(EdgeResnetError, match="not finite") as caught:
        fine_tune(sources["int8"], options, tmp_path / "out")
    assert "--rate" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_images_of_other_classes_are_refused(sources: dict[str, Artifact], tmp_path: Path) -> None:
    """No labels, labels beyond the network's, one class, and a set whose classes have other names."""
    artifact, images = sources["int8"], image_batch(6, 32)

    def saved(name: str, labels: list[int] | None) -> str:
        arrays = {} if labels is None else {"labels": np.array(labels)}
        np.savez(tmp_path / name, images=images, **arrays)
        return str(tmp_path / name)

    for path, said in (
        (saved("bare.npz", None), "no labels"),
        (saved("wide.npz", [0, 1, 2, 3, 4, 10]), "has class 10"),
        (saved("one.npz", [3] * 6), "one class"),
    ):
        with pytest.raises(DataError, match=said):
            open_train_data(path, None, artifact)
    named = Artifact(artifact.folder, artifact.manifest, ("airplane", *map(str, range(1, 10))))
    with pytest.raises(DataError, match="classes differ"):
        open_train_data("digits", None, named)
    digits = Artifact(artifact.folder, artifact.manifest, tuple(map(str, range(10))))
    data = open_train_data("digits", None, digits)
    assert data.test is not None
    assert len(data.train) > len(data.test)
    with pytest.raises(DataError, match="numbers them in another order"):
        open_train_data("digits", None, Artifact(artifact.folder, artifact.manifest, tuple(map(str, reversed(range(10))))))


@pytest.mark.parametrize("changes", [{"distil": 1.5}, {"distil": -0.1}, {"max_drop": 101.0}, {"max_drop": float("nan")}])
def test_shares_and_budgets_have_bounds(smooth_images: Path, changes: dict[str, object]) -> None:
    """Values out of range are refused when the options are made."""
    with pytest.raises(ConfigError, match=r"0\.\."):
        options_for(smooth_images, **changes)


def test_old_tables_still_open(tiny_int8: Path) -> None:
    """A table written before quantization-aware training existed has no record of it."""
    artifact = open_artifact(tiny_int8)
    path = tiny_int8 / CALIBRATION
    write_json(path, artifact.calibration())
    text = path.read_text(encoding="utf-8")
    assert '"qat": null' in text
    path.write_text(text.replace(',\n  "qat": null', ""), encoding="utf-8")
    assert artifact.calibration().qat is None


def test_a_budget_is_paired() -> None:
    """The drop is counted on the images on which the two differ."""
    labels = np.arange(10) % 2
    right = np.eye(2, dtype=np.float32)[labels]
    wrong = right.copy()
    wrong[0] = wrong[0][::-1]
    seen = QatAccuracy(labels.astype(np.int64), right, wrong, wrong)
    check = check_drop(seen, 10.0)
    assert check.missed is None
    assert check.report is not None
    assert check.report.drop == pytest.approx(10)
    assert check_drop(seen, None) == DropCheck(None, None)
    assert check_drop(seen, 9.0).missed is not None
