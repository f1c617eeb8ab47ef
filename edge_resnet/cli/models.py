"""``edge-resnet models``. Knows how the table is laid out; edge_resnet.network measures the networks."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from edge_resnet.network.zoo import NetworkFacts

__all__ = ["models"]

_NOTES = (
    "\nMeasured from the networks for one image of 224 or 32 pixels: convolutions and classifier. torchvision, and so the "
    "networks here, put the stride of a bottleneck on its 3x3 convolution, which costs more than on the first 1x1 convolution "
    "as in the paper: the column 'stride as paper' is for the paper's placement. The last column has the paper's own figures: "
    "multiply-adds in G (table 1) or parameters in M (table 6). v1, v2: top-1 in percent on ImageNet, as torchvision publishes "
    "it for these weights. Each name is what --model takes; --weights takes files of all of them."
)


def models(json_output: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False) -> None:
    """List the networks that can be built, with measured parameters and multiply-adds, and published figures.

    edge-resnet models
    """
    from edge_resnet.network import known_networks

    networks = known_networks()
    if json_output:
        typer.echo(json.dumps([asdict(facts) for facts in networks]))
        return
    from rich.console import Console

    # A fixed width: what a pipe receives does not depend on the terminal.
    Console(width=80, highlight=False).print(_table(networks), _NOTES)


def _table(networks: list[NetworkFacts]) -> Table:
    from rich.table import Table

    table = Table("network", "block", box=None, padding=(0, 1, 0, 0))
    for title in ("parameters", "multiply-\nadds", "stride\nas paper", "paper", "v1", "v2"):
        table.add_column(title, justify="right")
    for facts in networks:
        unit = "G" if facts.spec.family == "imagenet" else "M"
        table.add_row(
            facts.spec.name,
            facts.block,
            f"{facts.parameters / 1e6:.2f} M",
            f"{facts.multiply_adds / 1e9:.3f} G",
            "" if facts.paper_figure is None else f"{facts.paper_stride_multiply_adds / 1e9:.3f} G",
            "" if facts.paper_figure is None else f"{facts.paper_figure} {unit}",
            *(f"{facts.published_top1[name]:.1f}" if name in facts.published_top1 else "" for name in ("v1", "v2")),
        )
    return table
