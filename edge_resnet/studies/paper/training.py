"""Trains the networks of an experiment one after the other, each into its own folder, and resumes where it was interrupted.

Does not know what they are compared for.
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
from pydantic import TypeAdapter

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import ModelSpec, Progress
from edge_resnet.images.imageset import ImageSet, require_labels
from edge_resnet.network import build_network
from edge_resnet.network.training import EpochRecord, TrainData, TrainOptions, fit, score
from edge_resnet.network.training.checkpoint import CHECKPOINT
from edge_resnet.network.training.log import LOG, read_log
from edge_resnet.studies.paper.networks import FINISHED, printed_name
from edge_resnet.studies.paper.output import NETWORKS, write_json
from edge_resnet.studies.paper.request import ExperimentRequest, open_labelled

__all__ = ["TrainedNetwork", "TrainingOutcome", "train_networks"]

#: From this depth on the paper warms up at a rate of 0.01 until the training error is below 80 % (section 4.2).
WARM_UP_FROM, WARM_UP_RATE = 110, 0.01


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """One network's training.

    ``parameters``: their number. ``records``: one per epoch. ``stopped``: why it ended early, None if it did not. ``hits``:
    which test images the final weights classify correctly, (N,); None unless it is ``finished``.
    """

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
        """Training error of the last epoch in percent, accumulated over the augmented images."""
        return self.records[-1].train_error

    @property
    def test_error(self) -> float | None:
        """Test error of the last tested epoch in percent, None if none was tested."""
        tested = [record.test_error for record in self.records if record.test_error is not None]
        return tested[-1] if tested else None


@dataclass(frozen=True, eq=False)
class TrainingOutcome:
    """All trainings of one experiment. ``data``: the images they share. ``interrupted``: some are missing or incomplete."""

    networks: tuple[TrainedNetwork, ...]
    data: TrainData
    interrupted: bool


def train_networks(
    request: ExperimentRequest, specs: Sequence[ModelSpec], *, option: bool = False, progress: Progress | None = None
) -> TrainingOutcome:
    """Train each of ``specs`` on the request's images into ``networks/NAME`` of its output. Finished ones are read, not trained.

    ``option``: include the shortcut option in the names. On Ctrl-C returns what is done so far, or raises KeyboardInterrupt if
    no epoch is. Raises DataError for images that do not fit, BuildError if the results cannot be written.
    """
    data = _open_data(request)
    networks: list[TrainedNetwork] = []
    interrupted = False
    for spec in (replace(spec, classes=request.classes or _classes_of(data.train)) for spec in specs):
        name = printed_name(spec, option=option)
        task = _Task(name, spec, request.output / NETWORKS / name.replace(" ", "-").lower())
        try:
            finished = (task.folder / FINISHED).exists()
            networks.append(_read_finished(task.folder) if finished else _train(request, task, data, progress))
        except KeyboardInterrupt:
            interrupted = True
            networks += _read_unfinished(task)
            break
    if not networks:
        raise KeyboardInterrupt
    return TrainingOutcome(tuple(networks), data, interrupted)


@dataclass(frozen=True)
class _Task:
    """One network to train. ``folder`` gets its log, checkpoint and weights."""

    name: str
    spec: ModelSpec
    folder: Path


def _open_data(request: ExperimentRequest) -> TrainData:
    train = open_labelled(request, "train", classes=request.classes)
    test = open_labelled(request, "test", classes=request.classes or _classes_of(train))
    if train.class_names and test.class_names and train.class_names != test.class_names:
        differing = sorted(set(train.class_names) ^ set(test.class_names))
        what = f"only one of them has {differing[0]}" if differing else "their order differs"
        raise DataError(
            f"{train.name} and {test.name} have different classes: {what}", hint="both folders need the same class folders"
        )
    return TrainData(train, test, request.preprocess)


def _classes_of(images: ImageSet) -> int:
    """The classes that the set names or its labels need; at least two, so that the check of the images can refuse the set."""
    return max(len(images.class_names), max(require_labels(images)) + 1, 2)


def _train(request: ExperimentRequest, task: _Task, data: TrainData, progress: Progress | None) -> TrainedNetwork:
    """Train one network to the end, resuming it if it was started, and write its record."""
    options = _options(request, task.spec)
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        network = build_network(task.spec)
    result = fit(network, data, options, folder=task.folder, resume=True, progress=_named(progress, task.name))
    assert data.test is not None
    tested = score(network, data.test, data.preprocess, keep_logits=True)
    assert tested.logits is not None
    assert tested.labels is not None
    trained = TrainedNetwork(
        name=task.name,
        spec=task.spec,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        records=result.records,
        seconds=result.seconds,
        finished=True,
        stopped=result.stopped,
        hits=tested.logits.argmax(axis=1) == tested.labels,
    )
    write_json(task.folder / FINISHED, _as_json(trained, options))
    (task.folder / CHECKPOINT).unlink(missing_ok=True)
    return trained


def _options(request: ExperimentRequest, spec: ModelSpec) -> TrainOptions:
    if request.training is None:
        raise ConfigError(
            f"{request.experiment} needs options for the training, and no training is described", hint="give --epochs"
        )
    options = replace(request.training, seed=request.seed)
    deep = request.family == "cifar" and spec.depth >= WARM_UP_FROM
    return replace(options, warm_up=WARM_UP_RATE) if deep and options.warm_up is None else options


def _named(progress: Progress | None, name: str) -> Callable[[str, int, int], None] | None:
    """Report each network under its own name."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(name if stage == "train" else f"{name} {stage}", done, total)


def _as_json(trained: TrainedNetwork, options: TrainOptions) -> dict[str, Any]:
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


def _read_finished(folder: Path) -> TrainedNetwork:
    """Read a finished network's record. Raises DataError if it is damaged."""
    path = folder / FINISHED
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        bits = np.frombuffer(bytes.fromhex(found["test_hits"]), np.uint8)
        return TrainedNetwork(
            name=found["name"],
            spec=TypeAdapter(ModelSpec).validate_python(found["spec"]),
            parameters=found["parameters"],
            records=tuple(EpochRecord(**record) for record in found["records"]),
            seconds=found["seconds"],
            finished=True,
            stopped=found["stopped"],
            hits=np.unpackbits(bits, count=found["test_images"]).astype(bool),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=f"remove {folder}: the network is then trained again") from error


def _read_unfinished(task: _Task) -> list[TrainedNetwork]:
    """The complete epochs of an interrupted training, if there are any."""
    records = read_log(task.folder) if (task.folder / LOG).exists() else ()
    if not records:
        return []
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build_network(task.spec).parameters())
    seconds = sum(record.seconds for record in records)
    return [TrainedNetwork(task.name, task.spec, parameters, records, seconds, finished=False)]
