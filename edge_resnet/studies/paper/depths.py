"""Plain networks against residual ones as depth grows: figure 6 on CIFAR-10, figure 4 on class folders. Knows no loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import ModelSpec, Progress, Shortcut
from edge_resnet.measurement.page.figure import MARKERS, SERIES, Chart, draw
from edge_resnet.studies.paper.figures import CIFAR_ERROR, TEN_CROP_ERROR, TWIN_ERROR
from edge_resnet.studies.paper.request import ExperimentRequest
from edge_resnet.studies.paper.result import ExperimentResult
from edge_resnet.studies.paper.scale import scaled_down
from edge_resnet.studies.paper.trained import as_record, compared, curves, trained_table
from edge_resnet.studies.paper.training import Trained, train_networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["degradation", "depth", "shortcuts"]

#: Figure 6; figure 4.
_DEPTHS = {"cifar": (20, 32, 44, 56), "imagenet": (18, 34)}
_FIGURE = {"cifar": "figure 6", "imagenet": "figure 4"}
_CAPTION = (
    "The paper's: table 6 (CIFAR-10; those of its plain networks are drawn in figure 6 and not printed), "
    "table 2 (ImageNet, 10-crop)."
)


def degradation(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Train the plain and the residual network of every depth, the shallow ones first, option A as in the paper's twins.

    Raises ConfigError for fewer than two depths, and what ``train_networks`` raises.
    """
    depths = tuple(sorted(request.depths or _DEPTHS[request.family]))
    if len(depths) < 2:
        raise ConfigError("one depth shows no degradation", hint="--depths 20,56")
    like = request.like(shortcut="A")
    specs = [replace(like, depth=depth, plain=plain) for depth in depths for plain in (True, False)]
    session = train_networks(request, specs, progress=progress)
    plain = [network for network in session.networks if network.spec.plain]
    residual = [network for network in session.networks if not network.spec.plain]
    return ExperimentResult(
        "degradation",
        f"Degradation: plain against residual networks ({_FIGURE[request.family]})",
        (*_verdict(plain), *_verdict(residual), *_twins(session.networks)),
        (trained_table(_CAPTION, session.networks, _paper),),
        _charts(plain, residual),
        scaled_down(request, session, _DEPTHS[request.family]),
        request.settings(),
        {"networks": [as_record(network) for network in session.networks]},
        session.interrupted,
    )


def _verdict(networks: Sequence[Trained]) -> list[str]:
    """The deepest against the shallowest of one kind."""
    done = [network for network in networks if network.finished]
    return [compared(done[-1], done[0])] if len(done) > 1 else []


def _twins(networks: Sequence[Trained]) -> list[str]:
    """Residual against plain at the greatest depth that both finished."""
    done = {(n.spec.depth, n.spec.plain): n for n in networks if n.finished}
    depths = [depth for depth, plain in done if plain and (depth, False) in done]
    return [compared(done[max(depths), False], done[max(depths), True])] if depths else []


def _paper(network: Trained) -> str | None:
    if network.spec.family == "imagenet":
        found = TWIN_ERROR.get(network.name)
    else:
        found = None if network.spec.plain else CIFAR_ERROR.get(network.spec.depth)
    return None if found is None else found.text


def _charts(plain: Sequence[Trained], residual: Sequence[Trained]) -> tuple[Chart, ...]:
    errors = [record.test_error or 0.0 for network in (*plain, *residual) for record in network.records]
    errors += [record.train_error for network in (*plain, *residual) for record in network.records]
    top = min(100.0, 1.05 * max(errors))
    kinds = (("plain", "Plain networks", plain), ("residual", "Residual networks", residual))
    return tuple(curves(f"degradation-{name}", title, networks, top=top) for name, title, networks in kinds if networks)


_DEEPER = tuple(CIFAR_ERROR)


_DEPTH_CAPTION = "The paper's: table 6, CIFAR-10; 110 layers: the best of five runs (mean ± standard deviation)."


def depth(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Train the residual network of every depth, option A; from 110 layers on with the paper's warm-up at 0.01.

    Raises ConfigError for ImageNet's family, and what ``train_networks`` raises.
    """
    if request.family != "cifar":
        raise ConfigError("depth is table 6, of CIFAR's networks", hint="--family cifar; degradation has ImageNet's twins")
    depths = tuple(sorted(request.depths or _DEEPER))
    specs = [replace(request.like(), depth=layers) for layers in depths]
    session = train_networks(request, specs, progress=progress)
    return ExperimentResult(
        "depth",
        "Residual networks by depth (table 6)",
        _depth_verdicts(session.networks),
        (trained_table(_DEPTH_CAPTION, session.networks, _paper_depth),),
        (_depth_chart(session.networks), curves("depth-curves", "Errors while training", session.networks)),
        scaled_down(request, session, _DEEPER),
        request.settings(),
        {"networks": [as_record(network) for network in session.networks]},
        session.interrupted,
    )


def _depth_verdicts(networks: Sequence[Trained]) -> tuple[str, ...]:
    """Each depth against the one before."""
    done = [network for network in networks if network.finished]
    return tuple(compared(deeper, one) for one, deeper in pairwise(done))


def _paper_depth(network: Trained) -> str | None:
    found = CIFAR_ERROR.get(network.spec.depth)
    return None if found is None or network.spec.shortcut != "A" else found.text


def _depth_chart(networks: Sequence[Trained]) -> Chart:
    """Test error by depth, ours and the paper's."""
    ours = [(network.spec.depth, network.test_error) for network in networks if network.test_error is not None]

    def paint(axes: Axes) -> None:
        theirs = [(layers, error.top1) for layers, error in CIFAR_ERROR.items()]
        for place, (label, points) in enumerate((("here", ours), ("the paper, table 6", theirs))):
            line = f"{MARKERS[place]}{'--' if place else '-'}"
            axes.plot([layers for layers, _ in points], [error for _, error in points], line, color=SERIES[place], label=label)
        axes.set_xscale("log")
        axes.set_xticks(_DEEPER, [str(layers) for layers in _DEEPER])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("layers")
        axes.set_ylabel("test error, %")
        axes.set_ylim(0, None)
        axes.legend()

    words = ", ".join(f"{layers} layers {error:.2f}" for layers, error in ours)
    paper = ", ".join(f"{layers} layers {error.text}" for layers, error in CIFAR_ERROR.items())
    return draw("depth", "Test error by depth", paint, alt=f"Test error in percent. Here: {words}. The paper: {paper}.")


#: The paper compares options at 34 layers; on CIFAR it uses A alone.
_SHORTCUT_DEPTH = {"cifar": 20, "imagenet": 34}


_SHORTCUT_CAPTION = "The paper's: table 3, ImageNet, top-1 / top-5 of 10-crop testing, 34 layers."


_OPTIONS: tuple[Shortcut, ...] = ("A", "B", "C")


def shortcuts(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Train the plain network and the three residual ones of one depth.

    Raises ConfigError for more than one depth or a shortcut chosen, and what ``train_networks`` raises.
    """
    if len(request.depths) > 1 or request.shortcut is not None:
        raise ConfigError("shortcuts compares A, B and C at one depth", hint="for example --depths 34, without --shortcut")
    depth = request.depths[0] if request.depths else _SHORTCUT_DEPTH[request.family]
    like = replace(request.like(shortcut="A"), depth=depth)
    specs: list[ModelSpec] = [replace(like, plain=True), *(replace(like, shortcut=option) for option in _OPTIONS)]
    session = train_networks(request, specs, option=True, progress=progress)
    return ExperimentResult(
        "shortcuts",
        f"Shortcut options at {depth} layers (table 3)",
        _shortcut_verdicts(session.networks),
        (trained_table(_SHORTCUT_CAPTION, session.networks, _paper_shortcut),),
        (curves("shortcuts", f"Shortcut options at {depth} layers", session.networks),),
        scaled_down(request, session, (_SHORTCUT_DEPTH["imagenet"],)),
        request.settings(),
        {"networks": [as_record(network) for network in session.networks]},
        session.interrupted,
    )


def _shortcut_verdicts(networks: Sequence[Trained]) -> tuple[str, ...]:
    """Each option against the one before, the plain network first."""
    done = [network for network in networks if network.finished]
    return tuple(compared(one, before) for before, one in pairwise(done))


def _paper_shortcut(network: Trained) -> str | None:
    if network.spec.family != "imagenet":
        return None  # the paper has no such table for CIFAR
    found = TEN_CROP_ERROR.get(network.name)
    return None if found is None else found.text
