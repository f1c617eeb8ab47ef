"""``edge-resnet models``. Knows how the table is laid out; the measuring is edge_resnet.network'."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

__all__ = ["models"]


def models(json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False) -> None:
    """Print the networks of He et al. 2015: layers, parameters, multiply-adds, measured, beside the paper's figures.

    edge-resnet models
    """
    from edge_resnet.network import paper_table

    table = paper_table()
    if json_output:
        typer.echo(json.dumps([asdict(facts) for facts in table]))
        return
    header = (
        f"{'network':<17} {'block':<11} {'layers':>6} {'params':>9} {'multiply-adds':>14} {'stride as paper':>16} {'paper':>10}"
    )
    typer.echo(header)
    for facts in table:
        figure = f"{facts.paper_figure} {'G' if facts.spec.family == 'imagenet' else 'M par.'}"
        typer.echo(
            f"{facts.spec.name:<17} {facts.block:<11} {facts.layers:>6} {facts.parameters / 1e6:>7.2f} M "
            f"{facts.multiply_adds / 1e9:>12.3f} G {facts.paper_stride_multiply_adds / 1e9:>14.3f} G {figure:>10}"
        )
    typer.echo("")
    typer.echo(
        "Measured from the networks for one image (224 or 32 pixels), convolutions and classifier. torchvision, and so the"
    )
    typer.echo(
        "networks here, put a bottleneck's stride on its 3x3 convolution, which costs more than the paper's 1x1: the column"
    )
    typer.echo(
        "'stride as paper' counts the paper's placement. The paper's figures: table 1 (multiply-adds), table 6 (parameters)."
    )
