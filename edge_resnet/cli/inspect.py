"""``edge-resnet inspect``: prints what an artifact holds. Changes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.artifact.schema import ForeignSpec
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.text import printable

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.compiler.inspection import Quantization

__all__ = ["inspect"]


def inspect(
    artifact: Annotated[
        Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")
    ] = None,
    ranges: Annotated[bool, typer.Option("--ranges", help="Also list the calibrated range of every tensor.")] = False,
    quantization: Annotated[
        bool, typer.Option("--quantization", help="Also list each Q/DQ pair and weight of TensorRT's form, and why it is there.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also list the layers of a TensorRT engine, and what keeps INT8 from being faster.")
    ] = False,
    engine: Annotated[str | None, typer.Option("--engine", help="With --layers: which engine (default: the newest).")] = None,
    layer_info: Annotated[
        Path | None,
        typer.Option("--layer-info", help="List the layers in a file of trtexec --exportLayerInfo, without an artifact."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Check an artifact's hashes, and show what it holds.

    edge-resnet inspect artifacts/resnet50-int8 --quantization
    """
    from edge_resnet.artifact.folder import newest_artifact, open_artifact
    from edge_resnet.measurement.layerreport import layers_of_artifact, layers_of_file
    from edge_resnet.pipelines.engines import ARTIFACTS

    if layer_info is not None:
        if artifact is not None or ranges or quantization or layers or engine is not None:
            raise ConfigError("--layer-info shows one file, and no artifact", hint="leave the other options out, or use --layers")
        found = layers_of_file(layer_info)
        typer.echo(json.dumps(found.as_json()) if json_output else "\n".join(found.lines()))
        return
    if engine is not None and not layers:
        raise ConfigError("--engine selects the engine whose layers are listed", hint="add --layers")
    opened = open_artifact(artifact or newest_artifact(ARTIFACTS))
    engines = sorted(path.name for path in opened.folder.glob("engines/*") if not path.name.startswith("."))
    amax = dict(opened.calibration().amax) if ranges and opened.manifest.precision == "int8" else {}
    placed = _quantization(opened) if quantization else None
    report = layers_of_artifact(opened.folder, engine) if layers else None
    if json_output:
        extra: dict[str, object] = {"ranges": amax} if ranges else {}
        if placed is not None:
            extra["quantization"] = placed.as_json()
        if report is not None:
            extra["engine_layers"] = report.as_json()
        typer.echo(json.dumps({"artifact": str(opened.folder), "engines": engines, **asdict(opened.manifest), **extra}))
        return
    _show(opened, engines)
    for name, value in amax.items():
        typer.echo(printable(f"  {value:12.6g}  {name}"))
    for line in [*(placed.lines() if placed is not None else []), *(report.lines() if report is not None else [])]:
        typer.echo(printable(line))


def _quantization(artifact: Artifact) -> Quantization:
    from edge_resnet.compiler.inspection import quantization_of  # onnx

    return quantization_of(artifact)


def _show(artifact: Artifact, engines: list[str]) -> None:
    manifest = artifact.manifest
    spec, images = manifest.model, manifest.preprocess
    kind, origin = ("from ONNX", "the original") if isinstance(spec, ForeignSpec) else (f"shortcut {spec.shortcut}", "torch")
    rows = {
        "network": f"{spec.name}, {kind}, {spec.classes} classes ({artifact.labels[0]}, …)",
        "weights": spec.weights,
        "input": f"short side {images.resize}, crop {images.crop}, mean {images.mean}, std {images.std}",
        "precision": manifest.precision,
        "calibration": _calibration(artifact),
        "export": f"differs from {origin} by {manifest.export_max_abs:.2e} at most",
        "built": f"{manifest.created} with " + ", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
        "files": ", ".join(f"{name} {entry.size / 2**20:.1f} MiB" for name, entry in manifest.files.items()) + " (hashes hold)",
        "engines": ", ".join(engines) or "none; edge-resnet compile derives them",
    }
    typer.echo(printable(str(artifact.folder)))
    rows |= {f"changed {place}": text for place, text in enumerate(getattr(spec, "changes", ()), 1)}
    for name, text in rows.items():
        typer.echo(printable(f"  {name:<12}{text}"))


def _calibration(artifact: Artifact) -> str:
    recipe = artifact.manifest.recipe
    if recipe is None:
        return "none"
    method = f"percentile {recipe.percentile}" if recipe.method == "percentile" else recipe.method
    return f"{artifact.manifest.calibration}, {method}, seed {recipe.seed}"
