"""Trains the networks of an experiment one after the other, each finished one a folder, and goes on where it was stopped.

Knows nothing of what they are compared for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import ModelSpec, Progress
from edge_resnet.images.imageset import ImageSet, require_labels
from edge_resnet.network import build_network
from edge_resnet.network.training import EpochRecord, TrainData, TrainOptions, fit, score
from edge_resnet.network.training.checkpoint import CHECKPOINT
from edge_resnet.network.training.log import LOG, read_log
from edge_resnet.studies.paper.networks import FINISHED, printed_name
from edge_resnet.studies.paper.output import NETWORKS, write_json
from edge_resnet.studies.paper.request import ExperimentRequest, labelled

__all__ = ["Session", "Trained", "train_networks"]

#: From this depth on the paper warms up with 0.01 until the training error is below 80 % (section 4.2).
WARM_UP_FROM, WARM_UP_RATE = 110, 0.01


@dataclass(frozen=True, eq=False)
class Trained:
    """One network's training. ``parameters``: their number. ``records``: an entry per epoch. ``hits``: which test images the last
    weights get right, (N,); empty where it is not ``finished``. ``stopped``: why it ended before its time."""

    name: str
    spec: ModelSpec
    parameters: int
    records: tuple[EpochRecord, ...]
    seconds: float
    finished: bool
    stopped: str | None = None
    hits: npt.NDArray[np.bool_] | None = None

    @property
    def train_error(self) -> float:
        """Of the last epoch, in percent, running over the augmented images."""
        return self.records[-1].train_error

    @property
    def test_error(self) -> float | None:
        """Of the last weights tested, in percent."""
        tested = [record.test_error for record in self.records if record.test_error is not None]
        return tested[-1] if tested else None


@dataclass(frozen=True, eq=False)
class Session:
    """All trainings of one experiment. ``data``: what they learned from and were tested on. ``interrupted``: some are missing
    or cut short."""

    networks: tuple[Trained, ...]
    data: TrainData
    interrupted: bool


def train_networks(
    request: ExperimentRequest, specs: Sequence[ModelSpec], *, option: bool = False, progress: Progress | None = None
) -> Session:
    """Train each of ``specs`` on the request's images into ``networks/NAME`` of its output; finished ones are read, not trained.

    ``option``: the shortcut's letter is part of the name. Ctrl-C ends it with what there is; KeyboardInterrupt where that is no
    epoch at all. Raises DataError for images that do not fit, BuildError where the results cannot be written.
    """
    data = _data(request)
    networks: list[Trained] = []
    interrupted = False
    for spec in (replace(spec, classes=request.classes or _classes_of(data.train)) for spec in specs):
        name = printed_name(spec, option=option)
        folder = request.output / NETWORKS / name.replace(" ", "-").lower()
        try:
            done = (folder / FINISHED).exists()
            networks.append(_read(folder) if done else _train(request, spec, data, (name, folder), progress))
        except KeyboardInterrupt:
            interrupted = True
            networks += _part(name, spec, folder)
            break
    if not networks:
        raise KeyboardInterrupt
    return Session(tuple(networks), data, interrupted)


def _data(request: ExperimentRequest) -> TrainData:
    train = labelled(request, "train", classes=request.classes)
    test = labelled(request, "test", classes=request.classes or _classes_of(train))
    if train.class_names and test.class_names and train.class_names != test.class_names:
        differing = sorted(set(train.class_names) ^ set(test.class_names))
        what = f"only one of them has {differing[0]}" if differing else "they are in another order"
        raise DataError(
            f"{train.name} and {test.name} have different classes: {what}", hint="both folders need the same class folders"
        )
    return TrainData(train, test, request.preprocess)


def _classes_of(images: ImageSet) -> int:
    """As many as the set names, or as its labels need; two at least, so that a network can be made and refused by its images."""
    return max(len(images.class_names), max(require_labels(images)) + 1, 2)


def _train(
    request: ExperimentRequest, spec: ModelSpec, data: TrainData, place: tuple[str, Path], progress: Progress | None
) -> Trained:
    """Train one network to its end, or go on with it, and note that it is finished."""
    name, folder = place
    options = _options(request, spec)
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        network = build_network(spec)
    result = fit(network, data, options, folder=folder, resume=True, progress=_named(progress, name))
    assert data.test is not None
    answers = score(network, data.test, data.preprocess, keep_logits=True)
    assert answers.logits is not None
    assert answers.labels is not None
    hits = answers.logits.argmax(axis=1) == answers.labels
    parameters = sum(parameter.numel() for parameter in network.parameters())
    trained = Trained(name, spec, parameters, result.records, result.seconds, True, result.stopped, hits)
    write_json(folder / FINISHED, _as_json(trained, options))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return trained


def _options(request: ExperimentRequest, spec: ModelSpec) -> TrainOptions:
    if request.training is None:
        raise ConfigError(f"{request.experiment} trains, and no training is described", hint="give --epochs")
    options = replace(request.training, seed=request.seed)
    deep = request.family == "cifar" and spec.depth >= WARM_UP_FROM
    return replace(options, warm_up=WARM_UP_RATE) if deep and options.warm_up is None else options


def _named(progress: Progress | None, name: str) -> Callable[[str, int, int], None] | None:
    """A bar per network."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(name if stage == "train" else f"{name} {stage}", done, total)


def _as_json(trained: Trained, options: TrainOptions) -> dict[str, Any]:
    assert trained.hits is not None
    return {
        "schema_version": 1,
        "name": trained.name,
        "spec": asdict(trained.spec),
        "parameters": trained.parameters,
        "options": asdict(options),
        "records": [asdict(record) for record in trained.records],
        "seconds": trained.seconds,
        "stopped": trained.stopped,
        "test_images": len(trained.hits),
        "test_hits": np.packbits(trained.hits).tobytes().hex(),
    }


def _read(folder: Path) -> Trained:
    """A finished network's training. Raises DataError where its record is damaged."""
    path = folder / FINISHED
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        bits = np.frombuffer(bytes.fromhex(found["test_hits"]), np.uint8)
        return Trained(
            name=found["name"],
            spec=ModelSpec(**found["spec"]),
            parameters=found["parameters"],
            records=tuple(EpochRecord(**record) for record in found["records"]),
            seconds=found["seconds"],
            finished=True,
            stopped=found["stopped"],
            hits=np.unpackbits(bits, count=found["test_images"]).astype(bool),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=f"rm -r {folder}, and that network is trained again") from error


def _part(name: str, spec: ModelSpec, folder: Path) -> list[Trained]:
    """What there is of a training that was ended: its whole epochs, if any."""
    if not (folder / LOG).exists():
        return []
    records = read_log(folder)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build_network(spec).parameters())
    return [Trained(name, spec, parameters, records, sum(record.seconds for record in records), False)] if records else []
