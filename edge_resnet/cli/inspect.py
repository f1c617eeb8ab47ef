"""``edge-resnet inspect``. Knows how an artifact is shown; reads nothing but its manifest, ranges and engine cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.engines import ARTIFACTS

if TYPE_CHECKING:
    from edge_resnet.artifact import Artifact

__all__ = ["inspect"]


def inspect(
    artifact: Annotated[
        Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")
    ] = None,
    ranges: Annotated[bool, typer.Option("--ranges", help="Also the calibrated range of every tensor.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Check an artifact's hashes and show what it holds.

    edge-resnet inspect artifacts/resnet50-int8 --ranges
    """
    from edge_resnet.artifact import newest_artifact, open_artifact

    opened = open_artifact(artifact or newest_artifact(ARTIFACTS))
    engines = sorted(path.name for path in opened.folder.glob("engines/*") if not path.name.startswith("."))
    amax = dict(opened.calibration().amax) if ranges and opened.manifest.precision == "int8" else {}
    if json_output:
        extra = {"ranges": amax} if ranges else {}
        typer.echo(json.dumps({"artifact": str(opened.folder), "engines": engines, **asdict(opened.manifest), **extra}))
        return
    _show(opened, engines)
    for name, value in amax.items():
        typer.echo(f"  {value:12.6g}  {name}")


def _show(artifact: Artifact, engines: list[str]) -> None:
    manifest = artifact.manifest
    spec, pictures = manifest.model, manifest.preprocess
    rows = {
        "network": f"{spec.name}, shortcut {spec.shortcut}, {spec.classes} classes ({artifact.labels[0]}, …)",
        "weights": spec.weights,
        "input": f"short side {pictures.resize}, crop {pictures.crop}, mean {pictures.mean}, std {pictures.std}",
        "precision": manifest.precision,
        "calibration": _calibration(artifact),
        "export": f"differs from torch by {manifest.export_max_abs:.2e} at most",
        "built": f"{manifest.created} with " + ", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
        "files": ", ".join(f"{name} {entry.size / 2**20:.1f} MiB" for name, entry in manifest.files.items()) + " (hashes hold)",
        "engines": ", ".join(engines) or "none; edge-resnet compile derives them",
    }
    typer.echo(str(artifact.folder))
    for name, text in rows.items():
        typer.echo(f"  {name:<12}{text}")


def _calibration(artifact: Artifact) -> str:
    recipe = artifact.manifest.recipe
    if recipe is None:
        return "none"
    method = f"percentile {recipe.percentile}" if recipe.method == "percentile" else recipe.method
    return f"{artifact.manifest.calibration}, {method}, seed {recipe.seed}"
