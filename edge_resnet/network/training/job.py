"""A training as the command line asks for it: from words to weights, and the line that builds them. Knows no options' names."""

from __future__ import annotations

import json
import logging
import os
import shlex
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from edge_resnet.core.errors import BuildError, ConfigError, WeightsError
from edge_resnet.core.files import replace_files
from edge_resnet.core.records import (
    FAMILIES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    ModelSpec,
    Preprocess,
    Progress,
    Shortcut,
)
from edge_resnet.images.datasets import NAMES, open_pair
from edge_resnet.images.imageset import ImageSet, check_labels, require_labels
from edge_resnet.network import ResNet, build_network, load_weights
from edge_resnet.network.training.checkpoint import CHECKPOINT, WEIGHTS
from edge_resnet.network.training.fit import fit
from edge_resnet.network.training.loader import check_classes
from edge_resnet.network.training.log import LOG, RESULT
from edge_resnet.network.training.options import TrainData, TrainOptions, TrainResult

__all__ = ["LABELS", "STAGES", "JobResult", "NetworkChoice", "TrainJob", "run_job", "start_network"]

LABELS = "labels.txt"


@dataclass(frozen=True)
class NetworkChoice:
    """The network as a user names it: ``classes`` and ``input_size`` None are what the images and the family have."""

    family: Family
    depth: int
    shortcut: Shortcut = "B"
    plain: bool = False
    classes: int | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    weights: str = "random"
    freeze: str | None = None


@dataclass(frozen=True)
class TrainJob:
    """``data``, ``held_out``: what ``open_pair`` takes. ``folder``: None is runs/NAME. ``force``: replace a training there."""

    network: NetworkChoice
    data: str
    held_out: str | None
    options: TrainOptions
    folder: Path | None = None
    resume: bool = False
    force: bool = False


@dataclass(frozen=True)
class JobResult:
    """``build``: the command that makes an artifact of the weights in ``folder``."""

    folder: Path
    model: ModelSpec
    result: TrainResult
    build: str


def run_job(job: TrainJob, *, progress: Progress | None = None) -> JobResult:
    """Open the images, make the network, train it, and leave in the folder what ``build`` needs.

    Raises what ``open_pair``, ``start_network`` and ``fit`` raise.
    """
    words = job.network
    train, test = open_pair(job.data, job.held_out)
    check_classes(train)
    spec = _spec(words, train)
    for part in (train, test):
        if part is not None:
            require_labels(part)
            check_labels(part, spec.classes)
    size = spec.input_size
    preprocess = Preprocess(FAMILIES[words.family].resize(size), size, mean=words.mean, std=words.std)
    folder = job.folder or Path("runs") / spec.name
    if job.force and os.environ.get("RANK", "0") == "0":
        for name in (CHECKPOINT, LOG, RESULT, WEIGHTS, LABELS):
            (folder / name).unlink(missing_ok=True)
    network = start_network(spec, words.weights, seed=job.options.seed, freeze=words.freeze, progress=progress)
    data = TrainData(train, test, preprocess)
    result = fit(network, data, job.options, folder=folder, resume=job.resume, progress=progress)
    line = _build_line(job, spec, folder, train)
    if os.environ.get("RANK", "0") == "0":
        _add_network(folder, spec, line, train)
    return JobResult(folder, spec, result, line)


def _spec(words: NetworkChoice, train: ImageSet) -> ModelSpec:
    """The network, with a head for the classes that the images have."""
    highest = max(require_labels(train)) + 1
    family = FAMILIES[words.family]
    classes = words.classes or len(train.class_names) or (family.classes if train.name.startswith("imagenette") else highest)
    size = words.input_size or family.input_size
    if size < family.min_input_size:
        message = f"images of {size} pixels are too small for {words.family}'s networks: the last stage would see none"
        raise ConfigError(message, hint=f"--input-size {family.min_input_size} or more, or --family cifar")
    return ModelSpec(words.family, words.depth, words.shortcut, words.plain, classes, size, words.weights)


def _build_line(job: TrainJob, spec: ModelSpec, folder: Path, train: ImageSet) -> str:
    words = job.network
    line = ["edge-resnet", "build", "--family", spec.family, "--depth", str(spec.depth)]
    line += ["--shortcut", spec.shortcut] if spec.shortcut != FAMILIES[spec.family].shortcut else []
    line += ["--plain"] if spec.plain else []
    line += ["--weights", str(folder / WEIGHTS)]
    if train.class_names:
        line += ["--labels", str(folder / LABELS)]
    elif spec.classes != FAMILIES[spec.family].classes:
        line += ["--classes", str(spec.classes)]
    line += ["--input-size", str(words.input_size)] if words.input_size else []
    for name, values, usual in (("--mean", words.mean, IMAGENET_MEAN), ("--std", words.std, IMAGENET_STD)):
        line += [name, *map(str, values)] if values != usual else []
    calibration = job.data if job.data in NAMES and not os.path.lexists(job.data) else _origin(train)
    return shlex.join([*line, "--int8", "--calib-data", calibration])


def _origin(train: ImageSet) -> str:
    """Where the set lies, as ``--calib-data`` takes it: the archive, or the folder above the class folders."""
    where = train.where(0)
    return where.rpartition("[")[0] if where.endswith("]") else str(Path(where).parent.parent)


def _add_network(folder: Path, spec: ModelSpec, line: str, train: ImageSet) -> None:
    """Say in result.json what the weights are of, and write the names of the classes."""
    try:
        record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        record |= {"network": {**asdict(spec), "weights": str(folder / WEIGHTS)}, "started_from": spec.weights, "build": line}
        texts = {folder / RESULT: json.dumps(record, indent=2) + "\n"}
        if train.class_names:
            texts[folder / LABELS] = "\n".join(train.class_names) + "\n"
        replace_files({path: partial(Path.write_text, data=text, encoding="utf-8") for path, text in texts.items()})
    except OSError as error:
        raise BuildError(f"{folder} cannot be written: {error}", hint="free some space, then --resume") from error


logger = logging.getLogger(__name__)


#: What ``freeze`` may name, from the image to the head; all before it is frozen with it.
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


_STEM = ("conv1", "bn1")


def start_network(
    spec: ModelSpec, weights: str, *, seed: int, freeze: str | None = None, progress: Progress | None = None
) -> ResNet:
    """Make the network of ``spec`` from ``weights``: random, default, or a file, also one with a head of another width.

    Where the head's width differs only the head is new, drawn with ``seed``. ``freeze``: a stage of ``STAGES`` that the
    network has; it and all before it keep their weights, and their batch norms their statistics. Raises WeightsError where
    the weights do not fit, ConfigError for a stage that is not there.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(spec)
    if weights != "random":
        _fill(network, spec, weights, progress)
    if freeze is not None:
        _freeze(network, freeze, weights)
    return network


def _fill(network: ResNet, spec: ModelSpec, weights: str, progress: Progress | None) -> None:
    """Load ``weights``; where they are the same network's with another head, all but the head."""
    classes = spec.classes if weights != "default" else FAMILIES[spec.family].classes
    try:
        donor = network if classes == spec.classes else build_network(replace(spec, classes=classes))
        load_weights(donor, replace(spec, classes=classes), weights, progress=progress)
    except WeightsError as error:
        other = _width_of_file(error)
        if other is None or other == classes:
            raise
        donor = build_network(replace(spec, classes=other))
        load_weights(donor, replace(spec, classes=other), weights)
    if donor is not network:
        body = {name: tensor for name, tensor in donor.state_dict().items() if not name.startswith("fc.")}
        network.load_state_dict(body, strict=False)
        logger.info("the head is new: %d classes, %d in the weights", spec.classes, donor.fc.out_features)


def _width_of_file(error: WeightsError) -> int | None:
    """The head's width in the file, where the error says that only that differs."""
    _, found, width = error.hint.partition("--classes ")
    return int(width) if found and width.isdigit() else None


def _freeze(network: ResNet, stage: str, weights: str) -> None:
    names = [name for name in STAGES if name == "stem" or hasattr(network, name)]
    if stage not in names:
        raise ConfigError(f"{stage!r} is no stage of this network", hint=f"--freeze takes one of {', '.join(names)}")
    if weights == "random":
        raise ConfigError("random weights are not worth freezing", hint="--weights default, or a file")
    for name in names[: names.index(stage) + 1]:
        for part in _STEM if name == "stem" else (name,):
            module = getattr(network, part)
            assert isinstance(module, nn.Module)
            module.requires_grad_(requires_grad=False)
