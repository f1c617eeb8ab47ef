"""The family on one page: latency, memory, size, plans of the real builder, and accuracy where the weights are real.

    python benchmarks/family.py --weights DIR|v1|v2 --data IMAGES    # or make family WEIGHTS=… DATA=…
    python benchmarks/family.py --networks resnet18,resnet50         # random weights: no accuracy

Writes docs/family.md, and docs/family.json with all figures. A file of DIR belongs to the network whose name is in its own:
``resnext50_32x4d.pth``, ``resnet50-v2.safetensors``. A network without a file gets random weights: its latency, memory, size and
plan are those of any weights. Every measurement is stored when it is done: the same command goes on after Ctrl-C, and measures
again what another version, setting or file has changed. Artifacts are removed as soon as their network is complete.

Measures by the functions of ``edge_resnet`` alone. INT8 is ``quantize``'s default unless --correct says otherwise; for random
weights nothing is corrected. Of --data a third, at most --images, calibrates, and the rest is evaluated.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, get_args

import familytable
import numpy as np
from PIL import Image

import edge_resnet as er
from edge_resnet.artifact.enginecache import LAYERS, PLAN
from edge_resnet.core.errors import INTERRUPTED, ConfigError
from edge_resnet.core.files import sha256_of, write_whole
from edge_resnet.core.modelnames import NAMED, spec_named
from edge_resnet.core.packages import installed_version
from edge_resnet.core.records import Correction, Precision, QuantRecipe
from edge_resnet.device.machine import describe
from edge_resnet.images.datasets import open_data
from edge_resnet.measurement.bench.startup import measure_startup
from edge_resnet.measurement.layers import read_layers
from edge_resnet.network.zoo import class_names, measure
from edge_resnet.studies.sweep.cells import Cells
from edge_resnet.studies.sweep.selection import ImageSplit, hold_out

ROOT = Path(__file__).resolve().parent.parent
PAPERS = tuple(f"resnet{depth}" for depth in (18, 34, 50, 101, 152))
FAMILY = (*PAPERS, *(name for name in NAMED if name.startswith(("resnext", "wide_"))))
BACKENDS = ("openvino", "onnxruntime")
#: What a measurement depends on beside this package.
LIBRARIES = ("edge-resnet", "torch", "onnxruntime", "openvino", "tensorrt-rtx-cu12", "numpy")
SUFFIXES = (".safetensors", ".pth", ".pt", ".th")

Figures: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What is measured, and how. ``weights``: a folder, ``v1``, ``v2``, or empty for random ones."""

    networks: tuple[str, ...]
    weights: str
    data: str
    images: int
    correct: Correction | None
    seconds: float
    backends: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("fp32", "int8")


@dataclass
class Row:
    """One network: its weights, None for random ones, and the artifacts made of them so far."""

    name: str
    weights: str | None
    setting: Setting
    calibration: Path
    folder: Path
    made: dict[Precision, er.Artifact] = field(default_factory=dict)

    def artifact(self, precision: Precision) -> er.Artifact:
        """The network in that precision. INT8 is made of FP32."""
        if precision not in self.made:
            target, random = self.folder / f"{self.name}-{precision}", self.weights is None
            if precision == "int8":
                correct = "none" if random else self.setting.correct
                self.made[precision] = er.quantize(
                    self.artifact("fp32"), calibration=self.calibration, output=target, backend="onnxruntime", force=True,
                    overrides=er.RecipeOverrides(images=self.setting.images, correction=correct), allow_random=True,
                )  # fmt: skip
            else:
                self.made[precision] = er.build(
                    model=self.name, weights=self.weights or "random", precision=precision, output=target,
                    backend="onnxruntime", allow_random=random, force=True,
                )  # fmt: skip
        return self.made[precision]

    def build(self, precision: Precision) -> Figures:
        """Bytes of the artifact, and what its weights are called."""
        manifest = self.artifact(precision).manifest
        size = sum(entry.size for entry in manifest.files.values())
        return {"bytes": size, "weights": manifest.model.weights, "warnings": list(manifest.warnings)}

    def latency(self, precision: Precision, backend: str) -> Figures:
        """Milliseconds of one image after another, and the peak memory of a new process that does nothing else."""
        artifact = self.artifact(precision)
        found = er.benchmark(artifact, seconds=self.setting.seconds, backend=backend, power=False)
        if found.interrupted:
            raise KeyboardInterrupt
        started = measure_startup(Path(artifact.folder), backend, 1, 1)
        return {
            "p50_ms": found.p50_ms, "p90_ms": found.p90_ms, "count": found.count, "engine_bytes": found.engine_bytes,
            "others_share": found.conditions.others_share, "peak_mib": None if started is None else started.peak_mib,
        }  # fmt: skip

    def plan(self, precision: Precision) -> Figures:
        """What TensorRT for RTX builds: bytes of the plan, its layers, and those that multiply by the type they compute in."""
        folder = er.compile(self.artifact(precision), backend="tensorrt-rtx")
        assert folder is not None
        layers = read_layers(folder / LAYERS).layers
        types = [layer.precision for layer in layers if layer.multiplies]
        products = {name: types.count(name) for name in sorted(set(types), key=types.count, reverse=True)}
        return {"bytes": (folder / PLAN).stat().st_size, "layers": len(layers), "products": products}

    def accuracy(self, images: er.ImageSet, where: str) -> Figures:
        """Of INT8 beside FP32 on the same images; ``where``: a backend, or TensorRT, whose INT8 is simulated."""
        simulate = where == "TensorRT"
        found = er.evaluate(
            self.artifact("int8"), images, backend="auto" if simulate else where, simulate_int8=simulate
        )  # fmt: skip
        kept = ("images", "fp32_top1", "top1", "ci95", "agreement", "drop_ci95", "mcnemar_p")
        return {name: value for name, value in asdict(found).items() if name in kept}

    def forget(self) -> None:
        """Remove the artifacts: those of all networks would fill several GiB."""
        for precision in get_args(Precision):
            shutil.rmtree(self.folder / f"{self.name}-{precision}", ignore_errors=True)
        self.made.clear()


@dataclass(frozen=True)
class Cell:
    """One measurement of a row. ``kind``: its first word."""

    name: str
    measure: Callable[[], Figures]

    @property
    def kind(self) -> str:
        """Build, latency, plan or accuracy."""
        return self.name.partition(" ")[0]


@dataclass
class Pace:
    """How long the rest takes: seconds per multiply-add of each kind of cell, and per cell for latencies."""

    left: list[tuple[str, float]]
    spent: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)

    def end(self, kind: str, size: float, seconds: float | None) -> str:
        """A cell has ended, in ``seconds`` where it was measured now. Returns what is left, for people."""
        self.left.remove((kind, size))
        if seconds is not None:
            self.spent[kind] = self.spent.get(kind, 0.0) + seconds
            self.done[kind] = self.done.get(kind, 0.0) + size
        known = [size * self.spent[kind] / self.done[kind] for kind, size in self.left if kind in self.done]
        unknown = len(self.left) - len(known)
        return f"about {sum(known) / 60:.0f} min left" + (f", and {unknown} steps of unknown length" if unknown else "")


def cells_of(row: Row, images: er.ImageSet | None) -> list[Cell]:
    """All measurements of a network, in order."""
    precisions = row.setting.precisions
    found = [Cell(f"build {precision}", partial(row.build, precision)) for precision in precisions]
    found += [
        Cell(f"latency {precision} {backend}", partial(row.latency, precision, backend))
        for precision in precisions
        for backend in row.setting.backends
    ]
    found += [Cell(f"plan {precision}", partial(row.plan, precision)) for precision in get_args(Precision)]
    if images is not None and row.weights is not None:
        found += [
            Cell(f"accuracy {where}", partial(row.accuracy, images, where)) for where in (*row.setting.backends, "TensorRT")
        ]
    return found


def measured(setting: Setting, work: Path) -> tuple[dict[str, dict[str, Figures]], bool]:
    """Network → measurement → figures, or the reason why there are none; and whether all was measured before Ctrl-C."""
    split = _split(setting)
    rows = [Row(name, weights, setting, _calibration(split, work), work / "artifacts") for name, weights in _weights(setting)]
    cells, plans = Cells(work / "cells"), [(row, cells_of(row, split.evaluation)) for row in rows]
    sizes = {row.name: measure(spec_named(row.name)).multiply_adds / 1e9 for row in rows}
    pace = Pace([(cell.kind, _size(cell.kind, sizes[row.name])) for row, mine in plans for cell in mine])
    settled = asdict(replace(setting, networks=(), weights="", data=""))
    common = {"setting": settled, "versions": versions(), "data": _digest(split)}
    found: dict[str, dict[str, Figures]] = {}
    try:
        for row, mine in plans:
            figures = found.setdefault(row.name, {})
            key = {**common, "weights": _identity(row.weights)}
            for cell in mine:
                began, name = time.monotonic(), f"{row.name} {cell.name}"
                stored = cells.get(name, key)
                figures[cell.name] = kept = _measured(cell) if stored is None else stored
                if (fresh := stored is None) and "reason" not in kept:
                    cells.put(name, key, kept)
                left = pace.end(cell.kind, _size(cell.kind, sizes[row.name]), time.monotonic() - began if fresh else None)
                print(f"{name}: {kept.get('reason', 'measured' if fresh else 'kept')}; {left}", file=sys.stderr, flush=True)
            row.forget()
    except KeyboardInterrupt:
        return found, False
    return found, True


def versions() -> dict[str, str]:
    """The libraries that the figures depend on."""
    return {name: version for name in LIBRARIES if (version := installed_version(name)) is not None}


def assigned(folder: Path, networks: Sequence[str]) -> dict[str, Path]:
    """Network → the file whose name has the network's, the longest of all names. Raises ConfigError for two files of one."""
    known = {*FAMILY, *NAMED, *networks}
    spellings = {name: re.sub(r"(?<=[a-z])(?=\d)|_", "[-_ ]?", name) for name in known}
    patterns = {name: re.compile(rf"{spelling}(?!\d)", re.IGNORECASE) for name, spelling in spellings.items()}
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        fitting = [name for name, pattern in patterns.items() if pattern.search(path.name)]
        name = max(fitting, key=len, default="")
        if name in found:
            raise ConfigError(f"{found[name].name} and {path.name} are both of {name}", hint="keep one of them there")
        if name:
            found[name] = path
    return {name: path for name, path in found.items() if name in networks}


def _weights(setting: Setting) -> list[tuple[str, str | None]]:
    if setting.weights in ("", "v1", "v2"):
        return [(name, setting.weights or None) for name in setting.networks]
    files = assigned(Path(setting.weights), setting.networks)
    if not files:
        raise ConfigError(f"{setting.weights} has no weights of {', '.join(setting.networks)}", hint="name files as the networks")
    return [(name, str(files[name]) if name in files else None) for name in setting.networks]


def _identity(weights: str | None) -> str:
    return sha256_of(Path(weights)) if weights is not None and Path(weights).is_file() else str(weights)


def _measured(cell: Cell) -> Figures:
    try:
        return cell.measure()
    except er.EdgeResnetError as error:
        return {"reason": str(error).replace(f"{ROOT}/", "")}


def _size(kind: str, multiply_adds: float) -> float:
    """What the duration of a cell grows with."""
    return 1.0 if kind == "latency" else multiply_adds


def _split(setting: Setting) -> ImageSplit:
    if not setting.data:
        return ImageSplit(None, None, "", "")
    names = class_names(spec_named(setting.networks[0]))
    return hold_out(open_data(setting.data, split="test", label_names=names), QuantRecipe(images=setting.images))


def _digest(split: ImageSplit) -> str:
    return "" if split.evaluation is None else split.evaluation.digest()


def _calibration(split: ImageSplit, work: Path) -> Path:
    """A folder of the images to calibrate on: those held out of the data, else smooth seeded ones."""
    folder = work / "calibration"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if split.calibration is not None:
        for index in range(len(split.calibration)):
            Image.fromarray(split.calibration.load(index)).save(folder / f"{index:04}.png")
        return folder
    y, x = np.mgrid[0:256, 0:256] / 256
    for index, waves in enumerate(np.random.default_rng(0).uniform(1, 9, (16, 3, 2))):
        smooth = 127.5 + 127.5 * np.sin(2 * np.pi * (waves[:, 0, None, None] * x + waves[:, 1, None, None] * y))
        Image.fromarray(smooth.transpose(1, 2, 0).astype(np.uint8)).save(folder / f"{index:04}.png")
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the page. Returns 130 after Ctrl-C, when the page has what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(FAMILY))
    parser.add_argument("--weights", default="", help="a folder of files, v1 or v2; random weights without")
    parser.add_argument("--data", default="", help="labelled images; no accuracy without")
    parser.add_argument("--images", type=int, default=64, help="calibration images, held out of --data")
    parser.add_argument("--correct", choices=get_args(Correction), help="correction of INT8; quantize's default without")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of a latency measurement")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "family", help="finished measurements, and artifacts")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "family.md")
    words = parser.parse_args(arguments)
    networks, backends = (tuple(dict.fromkeys(filter(None, text.split(",")))) for text in (words.networks, words.backends))
    setting = Setting(networks, words.weights, words.data, words.images, words.correct, words.seconds, backends)
    try:
        rows, complete = measured(setting, words.work)
    except er.EdgeResnetError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted before the first measurement", file=sys.stderr)
        return INTERRUPTED
    machine, today = asdict(describe()), datetime.now(timezone.utc).strftime("%Y-%m-%d")
    record = {
        "created": today, "complete": complete, "machine": machine, "versions": versions(),
        "setting": asdict(setting) | {"weights": Path(setting.weights).name, "data": Path(setting.data).name}, "rows": rows,
    }  # fmt: skip
    write_whole(words.output.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())
    write_whole(words.output, familytable.page(record).encode())
    print(f"the page is {words.output}" + ("" if complete else "; interrupted: the same command goes on"))
    return 0 if complete else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
