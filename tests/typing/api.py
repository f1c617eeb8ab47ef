"""Every public name as a program uses it, for type checkers alone: never imported, never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn
from typing_extensions import assert_type

import edge_resnet as er
from edge_resnet.measurement.report.record import Report
from edge_resnet.network.training.job import JobResult
from edge_resnet.pipelines.finetune import FineTuned
from edge_resnet.streaming.records import Frame


def progress(stage: str, done: int, total: int) -> None:
    """What every long function reports to."""


def models(array: npt.NDArray[np.uint8], image: Image.Image, several: list[str | Path]) -> None:
    """``load``, and what a Model does."""
    assert_type(er.__version__, str)
    with er.load() as newest:
        assert_type(newest, er.Model)
    model = er.load(Path("artifact"), backend="auto", variant="native", progress=progress)
    er.load("artifact", variant="simulated").close()
    er.load(model.artifact, variant="reference").close()
    assert_type(model.artifact, er.Artifact)
    assert_type(model.artifact.folder, Path)
    assert_type(model.labels, tuple[str, ...])
    assert_type(model.backend, str)
    assert_type(model.variant, Literal["native", "simulated", "reference"])

    for given in ("image.jpg", Path("image.jpg"), image, array):
        assert_type(model.predict(given), er.Classification)
    found = model.predict(array, top=1, color="bgr")
    assert_type(found.source, str)
    assert_type(found.top, tuple[er.ClassScore, ...])
    assert_type(found.top[0].class_index, int)
    assert_type(found.top[0].label, str)
    assert_type(found.top[0].probability, float)

    skipped: list[str] = []
    assert_type(model.predict_many(["a.jpg", Path("b.jpg"), image, array], batch=4, skipped=skipped), Iterator[er.Classification])
    model.predict_many(several)
    model.predict_many(path for path in Path("photos").iterdir())
    model.predict_many(er.open_images("photos"), top=1, color="rgb")
    assert_type(model.logits(array), npt.NDArray[np.float32])
    model.logits([array, array], color="bgr")
    model.logits(["a.jpg", "b.jpg"])

    model.predict(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    model.predict(array, color="gbr")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    er.load("artifact", variant="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    er.load("artifact", "auto")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def artifacts(module: nn.Module, model: er.Model) -> None:
    """The functions that write artifacts and engines."""
    built = er.build(output="artifact", depth=50, precision="int8", calibration=Path("photos"), progress=progress)
    assert_type(built, er.Artifact)
    er.build(output=Path("artifact"), model=module, labels=["cat", "dog"], input_size=224, batch=8, backend="onnxruntime")
    er.build(
        output="artifact", family="cifar", depth=20, shortcut="A", plain=False, classes=10, mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2), weights=Path("weights.pth"), recipe="cifar10", overrides=er.RecipeOverrides(images=128),
        validation="val.csv", max_drop=0.5,
        batch=(1, 8, 32), tuning=er.EngineTuning(), allow_random=True, force=True,
    )  # fmt: skip
    er.build(depth="50")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    er.build(onnx=Path("network.onnx"), normalise="imagenet", output="artifact", resize=256)
    er.build(onnx="network.onnx", normalise="caffe")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    er.build(model="resnext50_32x4d", weights="v2", resize=232, interpolation="bicubic")
    er.build(output="artifact", precision="int4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    for given in (built, model, "artifact", Path("artifact")):
        assert_type(er.quantize(given, calibration="photos", output="int8", max_drop=None), er.Artifact)
        assert_type(er.compile(given, backend="onnxruntime", tuning=None), Path | None)
        assert_type(er.finetune(given, "photos", output="qat", training=er.TrainOptions(epochs=1), distil=0.5), FineTuned)
    trained = er.train(er.NetworkChoice("cifar", 20), "cifar10", options=er.TrainOptions(), output=Path("runs/r20"), resume=True)
    assert_type(trained, JobResult)


def figures(model: er.Model, artifact: er.Artifact) -> None:
    """The functions that measure."""
    images = er.open_images(Path("val"), labels=model.labels, split="test")
    assert_type(images, er.ImageSet)
    assert_type(images.labels, tuple[int, ...] | None)
    evaluation = er.evaluate(model, images, per_image=True)
    assert_type(evaluation, er.Evaluation)
    assert_type(evaluation.top1, float)
    assert_type(evaluation.ci95, tuple[float, float])
    er.evaluate(artifact, "val", backend="openvino", simulate_int8=False, allow_random=True, progress=progress)
    er.evaluate("artifact", Path("val"))

    result = er.benchmark(model, scenario="offline", seconds=10, batch=8, power=False, images=images)
    assert_type(result, er.BenchResult)
    assert_type(result.p90_ms, float)
    er.benchmark("artifact", backend="fake", cold_start=True)
    er.benchmark(artifact, scenario="server")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(er.report(er.SweepRequest(artifacts=(artifact.folder,)), "report", resume=True, force=False), Report)


class Door:
    """A sink of one's own."""

    name = "door"
    wants_frames = True

    def write(self, prediction: er.Prediction, frame: Frame) -> None:
        """Take one."""

    def close(self) -> None:
        """Close."""

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None: ...


def streams(model: er.Model) -> None:
    """``stream`` with every kind of source and sink."""
    seen: list[er.Prediction] = []
    summary = er.stream(model, "/dev/video0", sinks=[seen.append, "jsonl:out.jsonl", Door()], top=1, frames=10, tell=print)
    assert_type(summary, er.RunSummary)
    assert_type(summary.frames, int)
    assert_type(seen[0].top, tuple[er.ClassScore, ...])
    er.stream(model, [Path("clip.mp4"), "rtsp://door/main"], duration_s=60.0, rate=5.0, realtime=True, keep_trying=True)
    er.stream(model, "clip.mp4", sinks=[lambda prediction: prediction.source])
    er.stream(model, "clip.mp4", sinks=[7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def errors() -> None:
    """One base, and each of its children."""
    try:
        er.load("missing")
    except (
        er.ArtifactError, er.BackendError, er.BudgetError, er.BuildError, er.CalibrationError, er.ConfigError, er.DataError,
        er.ExportError, er.IncompatibleEngineError, er.MissingDependencyError, er.SourceError, er.WeightsError,
    ) as error:  # fmt: skip
        base: er.EdgeResnetError = error
        assert_type(base.message, str)
        assert_type(base.hint, str)
