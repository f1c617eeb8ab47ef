"""``edge-resnet compile``. Knows the options; the work is edge_resnet.compile's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["compile_"]


def compile_(
    artifact: Annotated[Path, typer.Argument(help="Folder that build wrote.")],
    backend: Annotated[str, typer.Option(help="auto or onnxruntime.")] = "auto",
    simulate_int8: Annotated[bool, typer.Option("--simulate-int8", help="Also the simulation of TensorRT's INT8.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Derive the engines that this machine needs, from the graph and the ranges in the artifact.

    edge-resnet compile artifacts/resnet50-int8
    """
    from edge_resnet.artifact import open_artifact
    from edge_resnet.compile import compile_engine

    opened = open_artifact(artifact)
    engines = [compile_engine(opened, backend)]
    if simulate_int8:
        engines.append(compile_engine(opened, backend, "simulated"))
    folders = [str(folder) for folder in engines if folder is not None]
    if json_output:
        typer.echo(json.dumps({"artifact": str(artifact), "engines": folders}))
        return
    for folder in folders:
        typer.echo(f"engine: {folder}")
    if not folders:
        typer.echo(f"{artifact} is {opened.manifest.precision}: this backend runs its graph as it is, there is nothing to derive")
