"""``edge-resnet inspect``. Knows how an artifact is shown, and what of it is quantized; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.core.errors import ArtifactError, ConfigError
from edge_resnet.measurement.layers import UNKNOWN, Layer, read_layers
from edge_resnet.measurement.whyslow import Slowdown, why_not_faster
from edge_resnet.pipelines.engines import ARTIFACTS

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.compiler.graph.placement import Placement

__all__ = ["Report", "inspect", "of_artifact", "of_file"]


def inspect(
    artifact: Annotated[
        Path | None, typer.Argument(help="Folder that build wrote (default: the newest under artifacts/).")
    ] = None,
    ranges: Annotated[bool, typer.Option("--ranges", help="Also the calibrated range of every tensor.")] = False,
    quantization: Annotated[
        bool, typer.Option("--quantization", help="Also each Q/DQ pair and weight of TensorRT's form, and why it is there.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also the layers of a TensorRT engine, and what keeps INT8 from being faster.")
    ] = False,
    engine: Annotated[str | None, typer.Option("--engine", help="With --layers: which engine (default: the newest).")] = None,
    layer_info: Annotated[
        Path | None, typer.Option("--layer-info", help="The same of a file of trtexec --exportLayerInfo, without an artifact.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")] = False,
) -> None:
    """Check an artifact's hashes and show what it holds.

    edge-resnet inspect artifacts/resnet50-int8 --quantization
    """
    from edge_resnet.artifact.folder import newest_artifact, open_artifact

    if layer_info is not None:
        if artifact is not None or ranges or quantization or layers or engine is not None:
            raise ConfigError("--layer-info shows one file, and no artifact", hint="leave the rest out, or use --layers")
        _show_layers_of(layer_info, json_output=json_output)
        return
    if engine is not None and not layers:
        raise ConfigError("--engine says which engine's layers", hint="add --layers")
    opened = open_artifact(artifact or newest_artifact(ARTIFACTS))
    engines = sorted(path.name for path in opened.folder.glob("engines/*") if not path.name.startswith("."))
    amax = dict(opened.calibration().amax) if ranges and opened.manifest.precision == "int8" else {}
    placed = _place(opened) if quantization else None
    report = _layers_of(opened, engine) if layers else None
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
        typer.echo(f"  {value:12.6g}  {name}")
    for line in [*(placed.lines() if placed is not None else []), *(report.lines() if report is not None else [])]:
        typer.echo(line)


def _layers_of(artifact: Artifact, engine: str | None) -> Report:

    return of_artifact(artifact.folder, engine)


def _show_layers_of(path: Path, *, json_output: bool) -> None:

    report = of_file(path)
    typer.echo(json.dumps(report.as_json()) if json_output else "\n".join(report.lines()))


@dataclass(frozen=True)
class _Placed:
    """A placement with the numbers of one artifact: amax by tensor, and the smallest and largest scale by node."""

    placement_of: Placement
    amax: dict[str, float]
    scales: dict[str, tuple[float, float]]

    def lines(self) -> list[str]:
        """The listing, with the range before each activation and the scales before each weight."""
        ranges = {tensor: f"  {value:12.6g}" for tensor, value in self.amax.items()}
        scales = {node: f"  {low:10.4g} to {high:10.4g}" for node, (low, high) in self.scales.items()}
        return self.listing.lines(ranges, scales)

    def as_json(self) -> dict[str, object]:
        """The listing's records, each pair with its ``amax`` and each weight with its scales."""
        shown = self.listing
        return {
            "pairs": len(shown.pairs) + len(shown.weights),
            "activations": [{**asdict(pair), "amax": self.amax[pair.tensor]} for pair in shown.pairs],
            "weights": [
                {"node": node, "channels": channels, "scale_min": self.scales[node][0], "scale_max": self.scales[node][1]}
                for node, channels in shown.weights
            ],
            "high_precision": [{"nodes": nodes, "reason": reason} for nodes, reason in shown.high_precision],
            "activations_for_cpu": [{**asdict(pair), "amax": self.amax[pair.tensor]} for pair in shown.for_cpu],
        }


def _place(artifact: Artifact) -> _Placed:
    """The artifact's placement. What is shown of the weights is read from the very graph that TensorRT takes."""
    if artifact.manifest.precision != "int8":
        raise ConfigError(
            f"{artifact.folder} is {artifact.manifest.precision}: nothing in it is quantized", hint="build with --int8"
        )
    from onnx import numpy_helper

    from edge_resnet.compiler.derive import corrected_graph, tensorrt_graph
    from edge_resnet.compiler.graph.placement import placement_of

    table = artifact.calibration()
    shown = placement_of(corrected_graph(artifact), frozenset(table.recipe.keep_high_precision))
    constants = {tensor.name: tensor for tensor in tensorrt_graph(artifact, "weak").graph.initializer}
    scales = {node: numpy_helper.to_array(constants[f"{node}.weight.scale"]) for node, _ in shown.weights}
    return _Placed(
        shown,
        amax={pair.tensor: table.amax[pair.range_of] for pair in (*shown.pairs, *shown.for_cpu)},
        scales={node: (float(value.min()), float(value.max())) for node, value in scales.items()},
    )


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


LAYERS, FACTS, PROFILE = "layers.json", "engine.json", "profile.json"


_TACTIC_WIDTH = 40


_HEADS = ("ms", "%", "precision", "format", "tactic", "layer")


#: Names shown of one finding; --json has all.
_SHOWN = 6


@dataclass(frozen=True)
class Report:
    """A listing, and what was found in it; None where INT8 was not asked for. ``source`` is the listing's file."""

    source: Path
    placement_of: Placement
    gpu: str | None
    findings: tuple[Slowdown, ...] | None

    def lines(self) -> list[str]:
        """The table, a line per layer in the order they run, and below it the causes."""
        layers = self.listing.layers
        count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
        total = "" if self.listing.timed_ms is None else f", {self.listing.timed_ms:.4g} ms"
        gpu = "" if self.gpu is None else f", {self.gpu}"
        return [f"{self.source}: {count}{total}{gpu}", *_table(map(_row, layers)), *self._why()]

    def as_json(self) -> dict[str, object]:
        """The same, with every name whole and every tensor."""
        layers = [{**asdict(layer), "precision": layer.precision} for layer in self.listing.layers]
        findings = None if self.findings is None else [asdict(finding) for finding in self.findings]
        return {
            "layer_info": str(self.source), "gpu": self.gpu, "timed_ms": self.listing.timed_ms,
            "tensors": list(self.listing.tensors), "layers": layers, "why_int8_is_not_faster": findings,
        }  # fmt: skip

    def _why(self) -> list[str]:
        if self.findings is None:
            return []
        if not self.findings:
            return ["why is INT8 not faster: nothing in this listing keeps it from being so"]
        return ["why is INT8 not faster", *(line for finding in self.findings for line in _said(finding))]


def of_artifact(folder: Path, key: str | None) -> Report:
    """Of one engine of an artifact: that of ``key``, else the one that was built last. Raises ArtifactError where no engine
    has a listing, ConfigError where the one of that key has none."""
    found = {path.parent.name: path for path in folder.glob(f"engines/*/{LAYERS}") if not path.parent.name.startswith(".")}
    if not found:
        raise ArtifactError(
            f"no engine in {folder} has a listing of its layers",
            hint=f"edge-resnet compile {folder} --backend tensorrt, on the device",
        )
    if key is not None and key not in found:
        raise ConfigError(f"no engine {key} with a listing in {folder}", hint=f"there is {', '.join(sorted(found))}")
    return of_file(found[key] if key is not None else max(found.values(), key=lambda path: path.stat().st_mtime_ns))


def of_file(path: Path) -> Report:
    """Of a listing anywhere, with ``profile.json`` and ``engine.json`` where they lie beside it. Raises ArtifactError where
    the listing or the profile is damaged."""
    profile = path.parent / PROFILE
    placement_of = read_layers(path, profile if profile.is_file() and profile != path else None)
    facts = _facts(path.parent / FACTS)
    options = facts.get("options")
    precision = options.get("precision") if isinstance(options, dict) else None
    gpu, capability = (value if isinstance(value := facts.get(name), str) else None for name in ("gpu", "compute_capability"))
    wanted = precision == "int8" if precision is not None else any(layer.precision == "INT8" for layer in placement_of.layers)
    return Report(path, placement_of, gpu, why_not_faster(placement_of, capability) if wanted else None)


def _facts(path: Path) -> dict[str, object]:
    """What the engine says of itself. Its lack costs a line about the GPU: the engine cache judges the file, not we."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _row(layer: Layer) -> tuple[str, ...]:
    time = (UNKNOWN, UNKNOWN) if layer.time is None else (f"{layer.time.milliseconds:.4f}", f"{layer.time.percent:.1f}")
    layout = next((tensor.layout for tensor in layer.outputs), UNKNOWN)
    tactic = layer.tactic if len(layer.tactic) <= _TACTIC_WIDTH else f"{layer.tactic[: _TACTIC_WIDTH - 1]}…"
    return (*time, layer.precision, layout, tactic, layer.name)


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Numbers to the right, words to the left; the layer's name last and whole, for it may be long."""
    cells = [_HEADS, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADS) - 1)]
    return [f"  {_aligned(row, widths)}  {row[-1]}" for row in cells]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=False)
    return "  ".join(cell.rjust(width) if column < 2 else cell.ljust(width) for column, (cell, width) in enumerate(cells))


def _said(finding: Slowdown) -> list[str]:
    share = "" if finding.percent is None else f", {finding.percent:.1f} % of the time"
    rest = len(finding.layers) - _SHOWN
    names = [f"      {name}" for name in finding.layers[:_SHOWN]] + ([f"      and {rest} more"] if rest > 0 else [])
    return [f"  {finding.text}{share}", *names, *([f"    → {finding.remedy}"] if finding.remedy else [])]
