"""The experiments that train: degradation (figures 4 and 6), depth (table 6) and shortcuts (table 3).

Does not know how a network is trained.
"""

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
from edge_resnet.studies.paper.scale import setup_differences
from edge_resnet.studies.paper.trained import as_record, compare, error_curves, trained_table
from edge_resnet.studies.paper.training import TrainedNetwork, train_networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["degradation", "depth", "shortcuts"]

#: Depths of the plain and residual networks in figures 6 and 4.
_DEGRADATION_DEPTHS = {"cifar": (20, 32, 44, 56), "imagenet": (18, 34)}
_DEGRADATION_FIGURE = {"cifar": "figure 6", "imagenet": "figure 4"}
_DEGRADATION_CAPTION = (
    "The paper's: table 6 (CIFAR-10; the errors of its plain networks are drawn in figure 6 and not printed), "
    "table 2 (ImageNet, 10-crop)."
)
#: Depths in table 6.
_TABLE6_DEPTHS = tuple(CIFAR_ERROR)
_TABLE6_CAPTION = "The paper's: table 6, CIFAR-10; for 110 layers the best of five runs (mean ± standard deviation)."
#: The paper compares shortcut options at 34 layers, on ImageNet only; on CIFAR it always uses A.
_SHORTCUTS_DEPTH = {"cifar": 20, "imagenet": 34}
_SHORTCUT_OPTIONS: tuple[Shortcut, ...] = ("A", "B", "C")
_TABLE3_CAPTION = "The paper's: table 3, ImageNet, 34 layers, top-1 / top-5 of 10-crop testing."


def degradation(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Train the plain and the residual network of every depth, shallow ones first, with option A as in the paper.

    Raises ConfigError for fewer than two depths, and what ``train_networks`` raises.
    """
    depths = tuple(sorted(request.depths or _DEGRADATION_DEPTHS[request.family]))
    if len(depths) < 2:
        raise ConfigError("one depth cannot show degradation", hint="for example --depths 20,56")
    base = request.base_spec(shortcut="A")
    specs = [replace(base, depth=layers, plain=plain) for layers in depths for plain in (True, False)]
    training = train_networks(request, specs, progress=progress)
    plain = [network for network in training.networks if network.spec.plain]
    residual = [network for network in training.networks if not network.spec.plain]
    return ExperimentResult(
        experiment="degradation",
        title=f"Degradation: plain against residual networks ({_DEGRADATION_FIGURE[request.family]})",
        verdicts=(
            *_deepest_against_shallowest(plain),
            *_deepest_against_shallowest(residual),
            *_deepest_twins(training.networks),
        ),
        tables=(trained_table(_DEGRADATION_CAPTION, training.networks, _twin_error),),
        charts=_degradation_charts(plain, residual),
        differences=setup_differences(request, training, _DEGRADATION_DEPTHS[request.family]),
        settings=request.settings(),
        data={"networks": [as_record(network) for network in training.networks]},
        interrupted=training.interrupted,
    )


def depth(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Train the residual network of every depth with option A; from 110 layers on with the paper's warm-up at 0.01.

    Raises ConfigError for ImageNet's family, and what ``train_networks`` raises.
    """
    if request.family != "cifar":
        hint = "--family cifar; the experiment degradation trains ImageNet networks"
        raise ConfigError("depth reproduces table 6, which is about CIFAR networks", hint=hint)
    depths = tuple(sorted(request.depths or _TABLE6_DEPTHS))
    specs = [replace(request.base_spec(), depth=layers) for layers in depths]
    training = train_networks(request, specs, progress=progress)
    return ExperimentResult(
        experiment="depth",
        title="Residual networks by depth (table 6)",
        verdicts=_each_against_the_previous(training.networks),
        tables=(trained_table(_TABLE6_CAPTION, training.networks, _table6_error),),
        charts=(_depth_chart(training.networks), error_curves("depth-curves", "Errors while training", training.networks)),
        differences=setup_differences(request, training, _TABLE6_DEPTHS),
        settings=request.settings(),
        data={"networks": [as_record(network) for network in training.networks]},
        interrupted=training.interrupted,
    )


def shortcuts(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Train the plain network of one depth, and the residual ones with options A, B and C.

    Raises ConfigError for more than one depth or a chosen shortcut, and what ``train_networks`` raises.
    """
    if len(request.depths) > 1 or request.shortcut is not None:
        raise ConfigError("shortcuts compares A, B and C at one depth", hint="for example --depths 34, without --shortcut")
    layers = request.depths[0] if request.depths else _SHORTCUTS_DEPTH[request.family]
    base = replace(request.base_spec(shortcut="A"), depth=layers)
    specs: list[ModelSpec] = [replace(base, plain=True), *(replace(base, shortcut=option) for option in _SHORTCUT_OPTIONS)]
    training = train_networks(request, specs, option=True, progress=progress)
    title = f"Shortcut options at {layers} layers"
    return ExperimentResult(
        experiment="shortcuts",
        title=f"{title} (table 3)",
        verdicts=_each_against_the_previous(training.networks),
        tables=(trained_table(_TABLE3_CAPTION, training.networks, _table3_error),),
        charts=(error_curves("shortcuts", title, training.networks),),
        differences=setup_differences(request, training, (_SHORTCUTS_DEPTH["imagenet"],)),
        settings=request.settings(),
        data={"networks": [as_record(network) for network in training.networks]},
        interrupted=training.interrupted,
    )


def _deepest_against_shallowest(networks: Sequence[TrainedNetwork]) -> list[str]:
    finished = [network for network in networks if network.finished]
    return [compare(finished[-1], finished[0])] if len(finished) > 1 else []


def _deepest_twins(networks: Sequence[TrainedNetwork]) -> list[str]:
    """Residual against plain at the greatest depth at which both are finished."""
    finished = {(network.spec.depth, network.spec.plain): network for network in networks if network.finished}
    depths = [layers for layers, plain in finished if plain and (layers, False) in finished]
    return [compare(finished[max(depths), False], finished[max(depths), True])] if depths else []


def _each_against_the_previous(networks: Sequence[TrainedNetwork]) -> tuple[str, ...]:
    finished = [network for network in networks if network.finished]
    return tuple(compare(network, previous) for previous, network in pairwise(finished))


def _twin_error(network: TrainedNetwork) -> str | None:
    """The paper's error of a plain network or its residual twin, where it prints one."""
    if network.spec.family == "imagenet":
        found = TWIN_ERROR.get(network.name)
    else:
        found = None if network.spec.plain else CIFAR_ERROR.get(network.spec.depth)
    return None if found is None else found.text


def _table6_error(network: TrainedNetwork) -> str | None:
    found = CIFAR_ERROR.get(network.spec.depth)
    return None if found is None or network.spec.shortcut != "A" else found.text


def _table3_error(network: TrainedNetwork) -> str | None:
    if network.spec.family != "imagenet":
        return None  # the paper has no such table for CIFAR
    found = TEN_CROP_ERROR.get(network.name)
    return None if found is None else found.text


def _degradation_charts(plain: Sequence[TrainedNetwork], residual: Sequence[TrainedNetwork]) -> tuple[Chart, ...]:
    """Error curves of both kinds, on axes of the same height."""
    errors = [record.test_error or 0.0 for network in (*plain, *residual) for record in network.records]
    errors += [record.train_error for network in (*plain, *residual) for record in network.records]
    top = min(100.0, 1.05 * max(errors))
    kinds = (("plain", "Plain networks", plain), ("residual", "Residual networks", residual))
    return tuple(error_curves(f"degradation-{name}", title, networks, top=top) for name, title, networks in kinds if networks)


def _depth_chart(networks: Sequence[TrainedNetwork]) -> Chart:
    """Test error by depth, ours and the paper's."""
    ours = [(network.spec.depth, network.test_error) for network in networks if network.test_error is not None]

    def paint(axes: Axes) -> None:
        theirs = [(layers, error.top1) for layers, error in CIFAR_ERROR.items()]
        for place, (label, points) in enumerate((("here", ours), ("the paper, table 6", theirs))):
            line = f"{MARKERS[place]}{'--' if place else '-'}"
            axes.plot([layers for layers, _ in points], [error for _, error in points], line, color=SERIES[place], label=label)
        axes.set_xscale("log")
        axes.set_xticks(_TABLE6_DEPTHS, [str(layers) for layers in _TABLE6_DEPTHS])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("layers")
        axes.set_ylabel("test error, %")
        axes.set_ylim(0, None)
        axes.legend()

    here = ", ".join(f"{layers} layers {error:.2f}" for layers, error in ours)
    paper = ", ".join(f"{layers} layers {error.text}" for layers, error in CIFAR_ERROR.items())
    return draw("depth", "Test error by depth", paint, alt=f"Test error in percent. Here: {here}. The paper: {paper}.")
