"""Shortcut options A, B and C of one depth, and the plain twin: table 3. Knows no training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import ModelSpec, Progress, Shortcut
from edge_resnet.paper.curves import curves
from edge_resnet.paper.figures import TEN_CROP_ERROR
from edge_resnet.paper.finding import Finding
from edge_resnet.paper.request import Request
from edge_resnet.paper.scale import scaled_down
from edge_resnet.paper.trained import as_record, compared, trained_table
from edge_resnet.paper.training import Trained, train_networks

__all__ = ["shortcuts"]

#: The paper compares options at 34 layers; on CIFAR it uses A alone.
_DEPTH = {"cifar": 20, "imagenet": 34}
_CAPTION = "The paper's: table 3, ImageNet, top-1 / top-5 of 10-crop testing, 34 layers."
_OPTIONS: tuple[Shortcut, ...] = ("A", "B", "C")


def shortcuts(request: Request, progress: Progress | None = None) -> Finding:
    """Train the plain network and the three residual ones of one depth.

    Raises ConfigError for more than one depth or a shortcut chosen, and what ``train_networks`` raises.
    """
    if len(request.depths) > 1 or request.shortcut is not None:
        raise ConfigError("shortcuts compares A, B and C at one depth", hint="for example --depths 34, without --shortcut")
    depth = request.depths[0] if request.depths else _DEPTH[request.family]
    like = replace(request.like(shortcut="A"), depth=depth)
    specs: list[ModelSpec] = [replace(like, plain=True), *(replace(like, shortcut=option) for option in _OPTIONS)]
    session = train_networks(request, specs, option=True, progress=progress)
    return Finding(
        "shortcuts",
        f"Shortcut options at {depth} layers (table 3)",
        _verdicts(session.networks),
        (trained_table(_CAPTION, session.networks, _paper),),
        (curves("shortcuts", f"Shortcut options at {depth} layers", session.networks),),
        scaled_down(request, session, (_DEPTH["imagenet"],)),
        request.settings(),
        {"networks": [as_record(network) for network in session.networks]},
        session.interrupted,
    )


def _verdicts(networks: Sequence[Trained]) -> tuple[str, ...]:
    """Each option against the one before, the plain network first."""
    done = [network for network in networks if network.finished]
    return tuple(compared(one, before) for before, one in pairwise(done))


def _paper(network: Trained) -> str | None:
    if network.spec.family != "imagenet":
        return None  # the paper has no such table for CIFAR
    found = TEN_CROP_ERROR.get(network.name)
    return None if found is None else found.text
