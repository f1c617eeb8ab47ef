"""CIFAR's residual networks from 20 to 1202 layers: table 6. Knows no training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.measurement.page.figure import MARKERS, SERIES, Chart, draw
from edge_resnet.paper.curves import curves
from edge_resnet.paper.figures import CIFAR_ERROR
from edge_resnet.paper.finding import Finding
from edge_resnet.paper.request import Request
from edge_resnet.paper.scale import scaled_down
from edge_resnet.paper.trained import as_record, compared, trained_table
from edge_resnet.paper.training import Trained, train_networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["depth"]

_DEPTHS = tuple(CIFAR_ERROR)
_CAPTION = "The paper's: table 6, CIFAR-10; 110 layers: the best of five runs (mean ± standard deviation)."


def depth(request: Request, progress: Progress | None = None) -> Finding:
    """Train the residual network of every depth, option A; from 110 layers on with the paper's warm-up at 0.01.

    Raises ConfigError for ImageNet's family, and what ``train_networks`` raises.
    """
    if request.family != "cifar":
        raise ConfigError("depth is table 6, of CIFAR's networks", hint="--family cifar; degradation has ImageNet's twins")
    depths = tuple(sorted(request.depths or _DEPTHS))
    specs = [replace(request.like(), depth=layers) for layers in depths]
    session = train_networks(request, specs, progress=progress)
    return Finding(
        "depth",
        "Residual networks by depth (table 6)",
        _verdicts(session.networks),
        (trained_table(_CAPTION, session.networks, _paper),),
        (_chart(session.networks), curves("depth-curves", "Errors while training", session.networks)),
        scaled_down(request, session, _DEPTHS),
        request.settings(),
        {"networks": [as_record(network) for network in session.networks]},
        session.interrupted,
    )


def _verdicts(networks: Sequence[Trained]) -> tuple[str, ...]:
    """Each depth against the one before."""
    done = [network for network in networks if network.finished]
    return tuple(compared(deeper, one) for one, deeper in pairwise(done))


def _paper(network: Trained) -> str | None:
    found = CIFAR_ERROR.get(network.spec.depth)
    return None if found is None or network.spec.shortcut != "A" else found.text


def _chart(networks: Sequence[Trained]) -> Chart:
    """Test error by depth, ours and the paper's."""
    ours = [(network.spec.depth, network.test_error) for network in networks if network.test_error is not None]

    def paint(axes: Axes) -> None:
        theirs = [(layers, error.top1) for layers, error in CIFAR_ERROR.items()]
        for place, (label, points) in enumerate((("here", ours), ("the paper, table 6", theirs))):
            line = f"{MARKERS[place]}{'--' if place else '-'}"
            axes.plot([layers for layers, _ in points], [error for _, error in points], line, color=SERIES[place], label=label)
        axes.set_xscale("log")
        axes.set_xticks(_DEPTHS, [str(layers) for layers in _DEPTHS])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("layers")
        axes.set_ylabel("test error, %")
        axes.set_ylim(0, None)
        axes.legend()

    words = ", ".join(f"{layers} layers {error:.2f}" for layers, error in ours)
    paper = ", ".join(f"{layers} layers {error.text}" for layers, error in CIFAR_ERROR.items())
    return draw("depth", "Test error by depth", paint, alt=f"Test error in percent. Here: {words}. The paper: {paper}.")
