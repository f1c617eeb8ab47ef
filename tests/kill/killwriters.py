"""The writers of the project, as commands in a folder: how each is run, and what must be true after it was killed anywhere.

A writer imports what it needs when it runs. Does not know how it is killed.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent
for _helpers in ("", "network/training", "streaming/sinks"):
    sys.path.append(str(TESTS / _helpers))


@dataclass(frozen=True)
class Writer:
    """``run``: one command that writes into a folder; the second argument is the folder of ``prepare``, which it only reads.
    ``begin``: makes the state in which it is killed.

    ``check``: raises AssertionError unless everything in the folder is whole or absent. ``kept``: names that must be there at any
    moment once the command has run. ``modules``: what ``run`` imports.
    """

    run: Callable[[Path, Path], object]
    check: Callable[[Path], object]
    begin: Callable[[Path, Path], object] = lambda *_: None
    prepare: Callable[[Path], object] = lambda _: None
    kept: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


def _build_source(folder: Path) -> None:
    from tiny import tiny_options

    from edge_resnet.pipelines.build import build

    y, x = np.mgrid[0:40, 0:48] / 48
    waves = np.random.default_rng(1).uniform(1, 6, (64, 3, 2))
    phase = waves[..., 0, None, None] * x + waves[..., 1, None, None] * y
    images = (127.5 + 127.5 * np.sin(2 * np.pi * phase)).transpose(0, 2, 3, 1).astype(np.uint8)
    np.savez(folder / "smooth.npz", images=images, labels=np.arange(64) % 10)
    build(replace(tiny_options("int8", folder / "int8", folder / "smooth.npz"), backend="onnxruntime"))


def _build(folder: Path, _: Path) -> None:
    from tiny import tiny_options

    from edge_resnet.pipelines.build import build

    build(replace(tiny_options("fp32", folder / "art", folder), backend="onnxruntime", force=True))


def _requantize(folder: Path, source: Path) -> None:
    from edge_resnet.artifact.folder import open_artifact
    from edge_resnet.core.records import QuantRecipe
    from edge_resnet.pipelines.requantize import requantize
    from edge_resnet.quantization.int8 import Int8Options

    options = Int8Options(str(source / "smooth.npz"), QuantRecipe(images=16), allow_random=True)
    requantize(open_artifact(source / "int8"), options, folder / "art", backend="onnxruntime", force=True)


def _check_artifact(folder: Path) -> None:
    from edge_resnet.artifact.folder import open_artifact

    if (folder / "art").exists():
        open_artifact(folder / "art")


def _without_engine(folder: Path, source: Path) -> None:
    """The artifact with no engine, or with a damaged one that is to be replaced."""
    if not (folder / "int8").exists():
        shutil.copytree(source / "int8", folder / "int8", ignore=shutil.ignore_patterns("engines"))
    for engine in (folder / "int8" / "engines").glob("*/meta.json"):
        engine.write_text("{}")


def _compile(folder: Path, _: Path) -> None:
    from edge_resnet.artifact.folder import open_artifact
    from edge_resnet.compiler.derive import compile_engine

    compile_engine(open_artifact(folder / "int8"), "onnxruntime")


def _check_engine(folder: Path) -> None:
    """An engine is found whole, or is not there and can be made."""
    from edge_resnet.artifact.enginecache import find_engine
    from edge_resnet.artifact.folder import open_artifact

    with suppress(FileNotFoundError):
        keys = [path.name for path in (folder / "int8" / "engines").iterdir() if not path.name.startswith(".")]
        artifact = open_artifact(folder / "int8")
        for key in keys:
            found = find_engine(artifact, key)
            meta = (folder / "int8" / "engines" / key / "meta.json").read_text()
            assert found is not None or meta == "{}", f"{key} is neither whole nor the damaged one"


def _graphs(folder: Path, source: Path) -> None:
    from edge_resnet.artifact.folder import open_artifact
    from edge_resnet.compiler.derive import write_trt_cache

    write_trt_cache(open_artifact(source / "int8"), folder / "trt.cache", "8.6.1", force=True)


def _check_graphs(folder: Path) -> None:
    import onnx

    if (folder / "trt.onnx").exists():
        onnx.checker.check_model(onnx.load(folder / "trt.onnx"))
    if (folder / "trt.cache").exists():
        assert (folder / "trt.cache").read_text().endswith("\n")


def _results(folder: Path, _: Path) -> None:
    from reports import bench_result

    from edge_resnet.measurement.bench.result import write_results

    write_results(folder / "bench.json", [replace(bench_result(), samples_us=tuple(map(float, range(20_000))))])


def _evaluation(folder: Path, _: Path) -> None:
    from reports import answers, evaluation

    from edge_resnet.measurement.accuracy import write_evaluation

    write_evaluation(folder / "eval.json", evaluation(answers(60_000, 100_000)))


def _report(folder: Path, _: Path) -> None:
    from reports import usual

    from edge_resnet.measurement.report.write import write_report
    from edge_resnet.studies.sweep.cells import Cells

    Cells(folder).put("resnet18 fp32", {"seed": 0}, {"rows": list(range(1000))})
    write_report(usual(), folder)


def _check_files(folder: Path) -> None:
    """Each file is complete for its kind."""
    from PIL import Image

    for path in _visible(folder):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".html", ".svg"):
            assert path.read_text().rstrip().endswith((">",)), path
        elif path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".csv":
            rows = list(csv.reader(path.open(newline="")))
            assert {len(row) for row in rows} == {len(rows[0])}, path
        else:
            assert path.stat().st_size, path


def _untrained(folder: Path, _: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _train(folder: Path, _: Path) -> None:
    from littlenet import QUICK, little_net, stripes_data

    from edge_resnet.network.training import fit

    fit(little_net(), stripes_data(), QUICK, folder=folder, resume=(folder / "checkpoint.safetensors").exists())


def _check_training(folder: Path) -> None:
    from safetensors import safe_open

    _check_files(folder)
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118 - not a mapping


def _deploy(folder: Path, _: Path) -> None:
    from edge_resnet.deployment.devicefiles import copy_shipped

    copy_shipped(folder / "deploy", force=True)


def _check_deploy(folder: Path) -> None:
    from edge_resnet.deployment.devicefiles import shipped_files

    for name, item in shipped_files().items():
        path = folder / "deploy" / name
        assert not path.exists() or path.read_bytes() == item.read_bytes(), name


def _timings(folder: Path, _: Path) -> None:
    from edge_resnet.compiler.tensorrt.timingcache import write_timings

    write_timings(folder / "cache" / "orin.timings", bytes(range(256)) * 4000)


def _check_timings(folder: Path) -> None:
    path = folder / "cache" / "orin.timings"
    assert not path.exists() or path.read_bytes() == bytes(range(256)) * 4000


def _not_downloaded(folder: Path, _: Path) -> None:
    (folder / "weights.pth").unlink(missing_ok=True)


def _download(folder: Path, source: Path) -> None:
    from edge_resnet.core.files import sha256_of
    from edge_resnet.network.pretrained import download

    download((source / "weights.pth").as_uri(), folder / "weights.pth", sha256_of(source / "weights.pth"))


def _check_download(folder: Path) -> None:
    path = folder / "weights.pth"
    assert not path.exists() or path.stat().st_size == 8 << 20


def _jsonl(folder: Path, _: Path) -> None:
    from sinksamples import predicted

    from edge_resnet.streaming.sinks.jsonl import JsonlSink

    with JsonlSink(folder / "out.jsonl", append=True, max_bytes=8_000, keep=3, sync="always") as sink:
        for frame in range(60):
            sink.write(predicted(frame), None)  # type: ignore[arg-type]  # it does not look at the frame


def _check_lines(folder: Path) -> None:
    """Every line of every file is whole: a process that is killed leaves no part of one, only a power cut does."""
    for path in _visible(folder):
        for line in path.read_text().splitlines():
            json.loads(line)


def _uncertain(folder: Path, _: Path) -> None:
    from sinksamples import Seen, predicted, with_image

    from edge_resnet.streaming.sinks.uncertain import UncertainSink

    with UncertainSink(folder, every_s=0) as sink:
        for frame in range(12):
            sink.write(predicted(frame, Seen(probability=0.3)), with_image(frame, height=480, width=640))


def _collect(folder: Path, _: Path) -> None:
    from edge_resnet.streaming.collect import SnapshotOptions, collect_snapshots
    from edge_resnet.streaming.sources import open_source

    there = len(list(folder.glob("*.jpg")))
    with open_source("synthetic://?frames=200") as source:
        collect_snapshots(source, folder, SnapshotOptions(count=there + 10, every_s=0, min_change=0))


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.parts))


def _weights(folder: Path) -> None:
    (folder / "weights.pth").write_bytes(bytes(8 << 20))


_BUILD = ("tiny", "edge_resnet.pipelines.build", "edge_resnet.pipelines.requantize", "edge_resnet.compiler.derive", "onnxruntime")
_TRAIN = ("littlenet", "edge_resnet.network.training", "safetensors", "torch.utils.tensorboard", "edge_resnet.network.pretrained")
_REPORT = ("reports", "edge_resnet.measurement.report.write", "edge_resnet.studies.sweep.cells", "matplotlib.pyplot", "jinja2")
_SINKS = ("sinksamples", "edge_resnet.streaming.sinks.jsonl", "edge_resnet.streaming.sinks.uncertain", "PIL.JpegImagePlugin")

#: Name → writer; every place in the package that writes a file for good uses one of these.
WRITERS: dict[str, Writer] = {
    "results": Writer(_results, _check_files, kept=("bench.json",), modules=("reports",)),
    "evaluation": Writer(_evaluation, _check_files, kept=("eval.json",), modules=("reports",)),
    "timings": Writer(
        _timings, _check_timings, kept=("cache/orin.timings",), modules=("edge_resnet.compiler.tensorrt.timingcache",)
    ),
    "deploy": Writer(
        _deploy, _check_deploy, kept=("deploy/README.md",), modules=("edge_resnet.deployment.devicefiles", "edge_resnet.deploy")
    ),
    "jsonl": Writer(_jsonl, _check_lines, modules=_SINKS),
    "uncertain": Writer(_uncertain, _check_files, modules=_SINKS),
    "collect": Writer(
        _collect, _check_files, modules=("edge_resnet.streaming.collect", "edge_resnet.streaming.sources", *_SINKS)
    ),
    "report": Writer(_report, _check_files, kept=("report.json", "report.html"), modules=_REPORT),
    "download": Writer(_download, _check_download, _not_downloaded, _weights, modules=_TRAIN),
    "train": Writer(_train, _check_training, _untrained, modules=_TRAIN),
    "build": Writer(_build, _check_artifact, kept=("art",), modules=_BUILD),
    "requantize": Writer(_requantize, _check_artifact, prepare=_build_source, kept=("art",), modules=_BUILD),
    "compile": Writer(_compile, _check_engine, _without_engine, _build_source, kept=("int8/engines/*",), modules=_BUILD),
    "trt-cache": Writer(_graphs, _check_graphs, prepare=_build_source, kept=("trt.onnx", "trt.cache"), modules=_BUILD),
}
