"""A training from start to end: open the images, make the network, train it, and prepare the folder for ``edge-resnet build``.

Does not know about the command line, except for the ``build`` command that it composes.
"""

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
    default_preprocess,
)
from edge_resnet.images.datasets import NAMES, open_pair
from edge_resnet.images.imageset import ImageSet, check_labels, require_labels
from edge_resnet.network import ResNet, build_network, load_weights
from edge_resnet.network.published import TORCHVISIONS
from edge_resnet.network.training.checkpoint import CHECKPOINT, WEIGHTS
from edge_resnet.network.training.fit import fit
from edge_resnet.network.training.loader import check_classes
from edge_resnet.network.training.log import LOG, RESULT
from edge_resnet.network.training.options import TrainData, TrainOptions, TrainResult

__all__ = ["LABELS", "STAGES", "JobResult", "NetworkChoice", "TrainJob", "run_job", "start_network"]

LABELS = "labels.txt"
#: The stages that ``freeze`` may name, from the input to the head.
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")

_STEM_MODULES = ("conv1", "bn1")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkChoice:
    """The network that the user asks for.

    ``classes`` is None for those of the images; ``input_size``, ``mean`` and ``std`` are None for what the weights say, else the
    family's. ``weights``: as ``load_weights`` takes them. ``freeze``: the last of ``STAGES`` to keep unchanged, None for none.
    """

    family: Family
    depth: int
    shortcut: Shortcut = "B"
    plain: bool = False
    classes: int | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    weights: str = "random"
    freeze: str | None = None


@dataclass(frozen=True)
class TrainJob:
    """A training to run.

    ``data``, ``held_out``: the arguments of ``open_pair``. ``folder``: None for runs/NAME. ``resume``: continue from the
    checkpoint in the folder. ``force``: replace a training in the folder. ``preprocess``: None for the family's, with what
    the network's choice says.
    """

    network: NetworkChoice
    data: str
    held_out: str | None
    options: TrainOptions
    folder: Path | None = None
    resume: bool = False
    force: bool = False
    preprocess: Preprocess | None = None


@dataclass(frozen=True)
class JobResult:
    """A finished training. ``build``: the command that makes an artifact of the weights in ``folder``."""

    folder: Path
    model: ModelSpec
    result: TrainResult
    build: str


def run_job(job: TrainJob, *, progress: Progress | None = None) -> JobResult:
    """Open the images, make the network, train it, and write into the folder what ``build`` needs.

    Raises what ``open_pair``, ``start_network`` and ``fit`` raise.
    """
    choice = job.network
    train, test = open_pair(job.data, job.held_out)
    check_classes(train)
    preprocess = job.preprocess or _familys(choice)
    spec = _spec(choice, preprocess.crop, train)
    for part in (train, test):
        if part is not None:
            require_labels(part)
            check_labels(part, spec.classes)
    folder = job.folder or Path("runs") / spec.name
    writes = os.environ.get("RANK", "0") == "0"
    if job.force and writes:
        for name in (CHECKPOINT, LOG, RESULT, WEIGHTS, LABELS):
            (folder / name).unlink(missing_ok=True)
    network = start_network(spec, choice.weights, seed=job.options.seed, freeze=choice.freeze, progress=progress)
    result = fit(network, TrainData(train, test, preprocess), job.options, folder=folder, resume=job.resume, progress=progress)
    command = _build_command(job, spec, folder, train)
    if writes:
        _add_network(folder, spec, command, train)
    return JobResult(folder, spec, result, command)


def start_network(
    spec: ModelSpec, weights: str, *, seed: int, freeze: str | None = None, progress: Progress | None = None
) -> ResNet:
    """Make the network of ``spec`` and load ``weights``, as ``load_weights`` takes them.

    If the weights are of the same network with another number of classes, the head is new, drawn with ``seed``. ``freeze``
    names a stage of ``STAGES``: it and all stages before it keep their weights and batch norm statistics. Raises WeightsError
    if the weights do not fit, ConfigError if the network does not have the stage.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(spec)
    if weights != "random":
        _load(network, spec, weights, progress)
    if freeze is not None:
        _freeze(network, freeze, weights)
    return network


def _familys(choice: NetworkChoice) -> Preprocess:
    size = choice.input_size or FAMILIES[choice.family].input_size
    return default_preprocess(choice.family, size, mean=choice.mean or IMAGENET_MEAN, std=choice.std or IMAGENET_STD)


def _spec(choice: NetworkChoice, size: int, train: ImageSet) -> ModelSpec:
    """The chosen network for images of ``size`` pixels, with a head for their classes."""
    highest = max(require_labels(train)) + 1
    family = FAMILIES[choice.family]
    classes = choice.classes or len(train.class_names) or (family.classes if train.name.startswith("imagenette") else highest)
    if size < family.min_input_size:
        message = f"images of {size} pixels are too small for the {choice.family} networks: nothing is left for the last stage"
        raise ConfigError(message, hint=f"--input-size {family.min_input_size} or more, or --family cifar")
    return ModelSpec(choice.family, choice.depth, choice.shortcut, choice.plain, classes, size, choice.weights)


def _build_command(job: TrainJob, spec: ModelSpec, folder: Path, train: ImageSet) -> str:
    choice = job.network
    command = ["edge-resnet", "build", "--family", spec.family, "--depth", str(spec.depth)]
    command += ["--shortcut", spec.shortcut] if spec.shortcut != FAMILIES[spec.family].shortcut else []
    command += ["--plain"] if spec.plain else []
    command += ["--weights", str(folder / WEIGHTS)]
    if train.class_names:
        command += ["--labels", str(folder / LABELS)]
    elif spec.classes != FAMILIES[spec.family].classes:
        command += ["--classes", str(spec.classes)]
    command += ["--input-size", str(choice.input_size)] if choice.input_size else []
    for option, values, usual in (("--mean", choice.mean, IMAGENET_MEAN), ("--std", choice.std, IMAGENET_STD)):
        command += [option, *map(str, values)] if values not in (None, usual) else []
    calibration = job.data if job.data in NAMES and not os.path.lexists(job.data) else _origin(train)
    return shlex.join([*command, "--int8", "--calib-data", calibration])


def _origin(train: ImageSet) -> str:
    """The path of the set for ``--calib-data``: its archive, or the folder that contains the class folders."""
    where = train.where(0)
    return where.rpartition("[")[0] if where.endswith("]") else str(Path(where).parent.parent)


def _add_network(folder: Path, spec: ModelSpec, command: str, train: ImageSet) -> None:
    """Add the network and the build command to result.json, and write the class names."""
    try:
        record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        record |= {"network": {**asdict(spec), "weights": str(folder / WEIGHTS)}, "started_from": spec.weights, "build": command}
        texts = {folder / RESULT: json.dumps(record, indent=2) + "\n"}
        if train.class_names:
            texts[folder / LABELS] = "\n".join(train.class_names) + "\n"
        replace_files({path: partial(Path.write_text, data=text, encoding="utf-8") for path, text in texts.items()})
    except OSError as error:
        raise BuildError(f"{folder} cannot be written: {error}", hint="free some disk space, then use --resume") from error


def _load(network: ResNet, spec: ModelSpec, weights: str, progress: Progress | None) -> None:
    """Load ``weights``; if they have another number of classes, load everything except the head."""
    classes = spec.classes if weights not in TORCHVISIONS else FAMILIES[spec.family].classes
    try:
        donor = network if classes == spec.classes else build_network(replace(spec, classes=classes))
        load_weights(donor, replace(spec, classes=classes), weights, progress=progress)
    except WeightsError as error:
        if error.classes is None or error.classes == classes:
            raise
        donor_spec = replace(spec, classes=error.classes)
        donor = build_network(donor_spec)
        load_weights(donor, donor_spec, weights)
    if donor is not network:
        body = {name: tensor for name, tensor in donor.state_dict().items() if not name.startswith("fc.")}
        network.load_state_dict(body, strict=False)
        logger.info("the head is new: %d classes, %d in the weights", spec.classes, donor.fc.out_features)


def _freeze(network: ResNet, stage: str, weights: str) -> None:
    names = [name for name in STAGES if name == "stem" or hasattr(network, name)]
    if stage not in names:
        raise ConfigError(f"this network has no stage {stage!r}", hint=f"--freeze takes one of {', '.join(names)}")
    if weights == "random":
        raise ConfigError("freezing random weights is not useful", hint="--weights default, or a file")
    for name in names[: names.index(stage) + 1]:
        for part in _STEM_MODULES if name == "stem" else (name,):
            module = getattr(network, part)
            assert isinstance(module, nn.Module)
            module.requires_grad_(requires_grad=False)
