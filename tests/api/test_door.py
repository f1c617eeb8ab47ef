"""``import edge_resnet``: what is there, how little the import loads, and every function on real tiny artifacts."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

import edge_resnet as er
from edge_resnet.artifact.folder import Artifact
from edge_resnet.core import errors
from edge_resnet.core.records import QuantRecipe
from edge_resnet.images.preprocess import preprocess
from edge_resnet.streaming.records import Frame

FUNCTIONS = [name for name in er.__all__ if inspect.isfunction(getattr(er, name))]
#: Few enough images for a test, and no more work than ranges need.
CHANGES = er.RecipeOverrides(method="max", images=16, correction="none")


def test_all_is_exact() -> None:
    """Sorted, each name resolves, ``dir`` shows these alone, and every error of the package is among them."""
    assert list(er.__all__) == sorted(er.__all__)
    assert dir(er) == er.__all__
    assert all(getattr(er, name) is not None for name in er.__all__)
    assert {name for name in errors.__all__ if name.endswith("Error")} == {name for name in er.__all__ if name.endswith("Error")}
    functions = [
        "benchmark",
        "build",
        "compile",
        "evaluate",
        "finetune",
        "load",
        "open_images",
        "quantize",
        "report",
        "stream",
        "train",
    ]
    assert functions == FUNCTIONS
    namespace: dict[str, object] = {}
    exec("from edge_resnet import *", namespace)
    assert set(namespace) - {"__builtins__"} == {*er.__all__}


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        er.predict  # noqa: B018
    assert not hasattr(er, "import_model")


def test_everything_public_is_documented() -> None:
    """A docstring for each name; every function's options are named, never positional."""
    for name in er.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(er, name))
    for name in FUNCTIONS:
        parameters = inspect.signature(getattr(er, name)).parameters.values()
        assert sum(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters) <= 2


def test_every_error_is_one_of_edge_resnets() -> None:
    """One ``except`` catches them all."""
    for name in (name for name in errors.__all__ if name.endswith("Error")):
        assert issubclass(getattr(er, name), er.EdgeResnetError)


def test_the_import_loads_the_standard_library_alone() -> None:
    """A child process sees what ``import edge_resnet`` brings in."""
    program = (
        "import sys; before = set(sys.modules); import edge_resnet\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = set(_child(program).split()) - {"edge_resnet"}
    assert {name for name in loaded if name not in sys.stdlib_module_names} == set()


def test_load_and_predict_need_neither_torch_nor_onnx(tiny_artifacts: dict[str, Artifact], photo: Path) -> None:
    """An artifact whose engine is cached runs on a device that has only the base packages."""
    folder = tiny_artifacts["int8"].folder
    er.compile(folder, backend="onnxruntime")
    program = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = sys.modules['torchvision'] = None\n"
        "import edge_resnet as er\n"
        f"with er.load({str(folder)!r}, backend='onnxruntime') as model: print(model.predict({str(photo)!r}).top[0].class_index)"
    )
    with er.load(folder, backend="onnxruntime") as model:
        assert int(_child(program)) == model.predict(photo).top[0].class_index


@pytest.mark.parametrize(
    ("blocked", "calls"),
    [
        ("torch", {"er.build(output='out', weights='random')": "[build]", "er.train(None, 'digits')": "[build]"}),
        (
            "onnx",
            {
                "er.build(output='out', weights='random')": "[build]",
                "er.quantize(FOLDER, calibration='digits', output='out', allow_random=True)": "[build]",
                "er.finetune(FOLDER, 'digits', output='out', allow_random=True)": "[build]",
                "er.compile(FOLDER)": "[compile]",
            },
        ),
        ("sklearn", {"er.open_images('digits')": "[demo]"}),
        ("cv2", {"er.stream(er.load(FOLDER, backend='fake'), 'clip.mp4')": "[camera]"}),
        ("starlette", {"er.stream(er.load(FOLDER, backend='fake'), 'synthetic://', sinks=['web:0'])": "[web]"}),
        ("paho", {"er.stream(er.load(FOLDER, backend='fake'), 'synthetic://', sinks=['mqtt:localhost/x'])": "[mqtt]"}),
        ("openvino", {"er.load(FOLDER, backend='openvino')": "[openvino]"}),
        ("onnxruntime", {"er.load(FOLDER, backend='onnxruntime')": ""}),
    ],
)
def test_a_missing_extra_is_named(
    blocked: str, calls: dict[str, str], tiny_artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    """The hint begins with the command that installs it, whatever the function."""
    (tmp_path / "clip.mp4").write_bytes(b"any")
    program = (
        f"import sys; sys.modules[{blocked!r}] = None\nimport edge_resnet as er\n"
        f"FOLDER = {str(tiny_artifacts['fp32'].folder)!r}\n"
    )
    program += "".join(f"try: {call}\nexcept er.MissingDependencyError as error: print(error.hint)\n" for call in calls)
    hints = _child(program, tmp_path).splitlines()
    for hint, extra in zip(hints, calls.values(), strict=True):
        assert hint.startswith(f"pip install 'edge-resnet{extra}'" if extra else "pip install edge-resnet")


@pytest.fixture(scope="module")
def photo(smooth_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image as a file."""
    path = tmp_path_factory.mktemp("photo") / "wave.png"
    Image.fromarray(er.open_images(smooth_images).load(3)).save(path)
    return path


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A torch ResNet of one's own."""
    torch.manual_seed(0)
    return resnet18(num_classes=5).eval()


@pytest.fixture(scope="module")
def own(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> er.Artifact:
    """Its artifact for images of 32 pixels, made by the door."""
    output = tmp_path_factory.mktemp("own") / "r18"
    labels = ["one", "two", "three", "four", "five"]
    return er.build(model=network, output=str(output), input_size=32, labels=labels, batch=(1, 2, 4), backend="onnxruntime")


def test_a_torch_resnet_keeps_its_weights(network: nn.Module, own: er.Artifact, photo: Path) -> None:
    """The artifact's logits are the module's, on the same preprocessed image."""
    manifest = own.manifest
    assert (manifest.model.depth, manifest.model.classes, manifest.model.input_size) == (18, 5, 32)
    assert dataclasses.astuple(manifest.batch) == (1, 2, 4)
    assert manifest.model.weights.startswith("sha256:")
    with Image.open(photo) as image:
        pixels = torch.from_numpy(preprocess(image, manifest.preprocess)).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (manifest.preprocess.mean, manifest.preprocess.std))
    with torch.no_grad():
        expected = network((pixels - mean) / std).numpy()
    with er.load(own, backend="onnxruntime") as model:
        np.testing.assert_allclose(model.logits(photo), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        assert model.labels == ("one", "two", "three", "four", "five")


def test_a_torch_resnet_in_int8(own: er.Artifact, photo: Path, smooth_images: Path, tmp_path: Path) -> None:
    """``quantize`` of what ``build`` made: no weights are needed again, and the answers stay close."""
    made = er.quantize(own, calibration=smooth_images, output=tmp_path / "int8", overrides=CHANGES, backend="onnxruntime")
    assert made.manifest.precision == "int8"
    assert made.labels == own.labels
    with er.load(own, backend="onnxruntime") as fp32, er.load(made, backend="onnxruntime") as int8:
        difference = np.abs(fp32.logits(photo) - int8.logits(photo)).max()
    assert 0 < difference < 1.0


def test_build_of_a_named_network(tmp_path: Path, smooth_images: Path) -> None:
    """The calls that the command line makes: random weights of a small network, calibrated on demand."""
    stages: list[str] = []
    made = er.build(
        output=tmp_path / "tiny", family="cifar", depth=8, weights="random", precision="int8", calibration=str(smooth_images),
        overrides=CHANGES, classes=4, allow_random=True, backend="onnxruntime",
        progress=lambda stage, done, total: stages.append(stage),
    )  # fmt: skip
    assert (made.folder, made.manifest.model.classes, made.manifest.precision) == (tmp_path / "tiny", 4, "int8")
    recipe = made.manifest.recipe
    assert isinstance(recipe, QuantRecipe)
    assert (recipe.method, recipe.images) == ("max", 16)
    assert {"export", "compile"} <= set(stages)


def test_compile_gives_the_engines_folder(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """Once; None where the graph itself runs."""
    folder = shutil.copytree(tiny_artifacts["int8"].folder, tmp_path / "copy")
    shutil.rmtree(folder / "engines")
    first = er.compile(str(folder), backend="onnxruntime")
    assert first is not None
    assert first.parent == folder / "engines"
    assert er.compile(folder, backend="onnxruntime") == first
    assert er.compile(tiny_artifacts["fp32"], backend="onnxruntime") is None


def test_open_images_takes_paths_and_names(smooth_images: Path, photo: Path) -> None:
    """Strings and Paths; a data set by name in both parts."""
    assert len(er.open_images(smooth_images)) == len(er.open_images(str(smooth_images))) == 64
    assert len(er.open_images(photo)) == 1
    assert len(er.open_images("digits", split="train")) > len(er.open_images("digits")) > 300


def test_evaluate_by_path_artifact_and_model(tiny_artifacts: dict[str, Artifact], smooth_images: Path) -> None:
    """The same figures, whatever names the artifact and the images."""
    artifact = tiny_artifacts["int8"]
    found = er.evaluate(artifact.folder, smooth_images, backend="onnxruntime", allow_random=True)
    assert found.images == 64
    assert found.backend == "onnxruntime"
    assert 0 <= found.ci95[0] <= found.top1 <= found.ci95[1] <= 100
    assert found.right == ""
    images = er.open_images(smooth_images)
    with er.load(artifact, backend="onnxruntime") as model:
        again = er.evaluate(model, images, allow_random=True, per_image=True)
    assert (again.top1, again.top5, again.agreement) == (found.top1, found.top5, found.agreement)
    assert len(again.right) == 64


def test_evaluate_takes_the_models_backend_and_variant(tiny_artifacts: dict[str, Artifact], smooth_images: Path) -> None:
    """A simulation stays one; the reference is refused, since the result would be of another network."""
    with er.load(tiny_artifacts["int8"], variant="simulated") as model:
        assert er.evaluate(model, smooth_images, allow_random=True).simulated
    with er.load(tiny_artifacts["int8"], backend="fake") as model:
        assert er.evaluate(model, smooth_images, allow_random=True).backend == "fake"
        assert er.evaluate(model, smooth_images, backend="onnxruntime", allow_random=True).backend == "onnxruntime"
    with er.load(tiny_artifacts["int8"], backend="onnxruntime", variant="reference") as model:
        with pytest.raises(er.ConfigError, match="reference") as error:
            er.evaluate(model, smooth_images, allow_random=True)
        assert error.value.hint


@pytest.mark.usefixtures("brief_bench")
def test_benchmark_an_open_model_and_a_path(tiny_artifacts: dict[str, Artifact], smooth_images: Path) -> None:
    """Each scenario on the fake backend; the model that is handed in stays open."""
    images = er.open_images(smooth_images)
    with er.load(tiny_artifacts["fp32"], backend="fake") as model:
        single = er.benchmark(model, seconds=0.05, power=False)
        several = er.benchmark(model, scenario="multi-stream", seconds=0.05, power=False, images=images)
        model.predict(images.load(0))
    offline = er.benchmark(
        str(tiny_artifacts["fp32"].folder), scenario="offline", batch=4, backend="fake", seconds=0.05, power=False
    )
    assert [found.scenario for found in (single, several, offline)] == ["single-stream", "multi-stream", "offline"]
    assert [found.batch for found in (single, several, offline)] == [1, 8, 4]
    for found in (single, several, offline):
        assert found.backend == "fake"
        assert 0 < found.p50_ms <= found.p90_ms <= found.max_ms
        assert found.cold_start_ms is None
        assert found.power is None


def test_stream_into_a_function_a_file_and_a_sink(
    tiny_artifacts: dict[str, Artifact], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every frame reaches all three in order, and nothing is printed."""

    class Counter:
        name, wants_frames, shapes = "counter", True, list[tuple[int, ...]]()

        def write(self, prediction: er.Prediction, frame: Frame) -> None:
            self.shapes.append(frame.image.shape)

        def close(self) -> None: ...
        def __enter__(self) -> Counter:
            return self

        def __exit__(self, *_: object) -> None: ...

    seen: list[er.Prediction] = []
    out = tmp_path / "out.jsonl"
    with er.load(tiny_artifacts["fp32"], backend="fake") as model:
        summary = er.stream(
            model, "synthetic://?frames=20&width=64&height=48", sinks=[seen.append, f"jsonl:{out}", Counter()], top=2
        )
        assert model.predict(np.zeros((8, 8, 3), np.uint8)).top  # the model stays open
    assert isinstance(summary, er.RunSummary)
    assert summary.frames == len(seen) == 20
    assert not summary.interrupted
    assert [prediction.frame for prediction in seen] == [*range(20)]
    assert all(len(prediction.top) == 2 for prediction in seen)
    assert [json.loads(line)["frame"] for line in out.read_text().splitlines()] == [*range(20)]
    assert Counter.shapes == [(48, 64, 3)] * 20
    assert capfd.readouterr() == ("", "")


def test_stream_files_until_the_limit(tiny_artifacts: dict[str, Artifact], photo: Path) -> None:
    """Several sources as Paths; ``frames`` ends it."""
    with er.load(tiny_artifacts["fp32"], backend="fake") as model:
        assert er.stream(model, [photo, str(photo), photo.parent]).frames == 3
        assert er.stream(model, photo.parent, frames=1, duration_s=60.0).frames == 1


def test_a_function_that_fails_loses_its_predictions(tiny_artifacts: dict[str, Artifact]) -> None:
    """The run goes on, and the summary counts them."""

    def fails(prediction: er.Prediction) -> None:
        if prediction.frame % 2:
            raise RuntimeError("odd")

    with er.load(tiny_artifacts["fp32"], backend="fake") as model:
        summary = er.stream(model, "synthetic://?frames=10&width=32&height=32", sinks=[fails])
    assert summary.frames == 10
    assert summary.lost == {"function": 5}


@pytest.mark.slow
def test_train_finetune_and_report(tmp_path: Path, smooth_images: Path) -> None:
    """From nothing to a page: a network is trained, built, fine-tuned in INT8 and reported on."""
    options = er.TrainOptions(epochs=1, batch=16, augment="none", device="cpu")
    job = er.train(er.NetworkChoice("cifar", 8, "A"), smooth_images, options=options, output=tmp_path / "run")
    assert job.folder == tmp_path / "run"
    built = er.build(
        output=tmp_path / "fp32", family="cifar", depth=8, weights=job.folder / "weights.safetensors", backend="onnxruntime"
    )
    tuned = er.finetune(
        built, smooth_images, output=str(tmp_path / "qat"), training=options, validation=smooth_images, backend="onnxruntime"
    )
    assert tuned.artifact.manifest.precision == "int8"
    assert tuned.accuracy is not None
    request = er.SweepRequest(
        artifacts=(built.folder, tuned.artifact.folder),
        backends=("onnxruntime",),
        batches=(1,),
        data=str(smooth_images),
        seconds=0.1,
    )
    found = er.report(request, tmp_path / "report")
    assert {row.precision for row in found.rows} == {"fp32", "int8"}
    assert (tmp_path / "report" / "report.html").is_file()
    with pytest.raises(er.BuildError):
        er.report(request, tmp_path / "report")
    assert len(er.report(request, tmp_path / "report", resume=True).rows) == 2


def _child(program: str, folder: Path | None = None) -> str:
    """What a Python process prints; it must succeed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
