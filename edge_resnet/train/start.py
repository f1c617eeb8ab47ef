"""The network that a training begins with: random, or trained weights with a new head and frozen stages. Knows no pictures."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import nn

from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.records import ModelSpec, Progress
from edge_resnet.models import ResNet, build_network, load_weights

__all__ = ["STAGES", "start_network"]

logger = logging.getLogger(__name__)

#: What ``freeze`` may name, from the picture to the head; all before it is frozen with it.
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
    classes = spec.classes if weights != "default" else 10 if spec.family == "cifar" else 1000
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
