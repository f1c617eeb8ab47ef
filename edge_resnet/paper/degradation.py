"""Plain networks against residual ones as depth grows: figure 6 on CIFAR-10, figure 4 on class folders. Knows no loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.measurement.page.figure import Chart
from edge_resnet.paper.curves import curves
from edge_resnet.paper.figures import CIFAR_ERROR, TWIN_ERROR
from edge_resnet.paper.finding import Finding
from edge_resnet.paper.request import Request
from edge_resnet.paper.scale import scaled_down
from edge_resnet.paper.trained import as_record, compared, trained_table
from edge_resnet.paper.training import Trained, train_networks

__all__ = ["degradation"]

#: Figure 6; figure 4.
_DEPTHS = {"cifar": (20, 32, 44, 56), "imagenet": (18, 34)}
_FIGURE = {"cifar": "figure 6", "imagenet": "figure 4"}
_CAPTION = (
    "The paper's: table 6 (CIFAR-10; those of its plain networks are drawn in figure 6 and not printed), "
    "table 2 (ImageNet, 10-crop)."
)


def degradation(request: Request, progress: Progress | None = None) -> Finding:
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
    return Finding(
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
