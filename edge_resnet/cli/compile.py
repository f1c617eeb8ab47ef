"""``edge-resnet compile``. Knows the options and trtexec's flags; the work is edge_resnet.compiler.derive's."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError

if TYPE_CHECKING:
    from edge_resnet.artifact.enginecache import EngineTuning
    from edge_resnet.artifact.folder import Artifact

__all__ = ["compile_"]

#: edge_resnet.compiler.derive's own, repeated because that module loads onnx.
Dialect: TypeAlias = Literal["weak", "strong"]
_TENSORRT = "TensorRT"
_PRECISION_FLAGS: dict[str, list[str]] = {"int8": ["--int8", "--fp16"], "fp16": ["--fp16"], "fp32": []}


def compile_(
    artifact: Annotated[Path, typer.Argument(help="Folder that build wrote.")],
    backend: Annotated[str, typer.Option(help="auto, tensorrt, openvino or onnxruntime.")] = "auto",
    simulate_int8: Annotated[bool, typer.Option("--simulate-int8", help="Also the simulation of TensorRT's INT8.")] = False,
    workspace: Annotated[
        int | None,
        typer.Option(metavar="MiB", help="Memory that a layer may use (default: TensorRT's own).", rich_help_panel=_TENSORRT),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(help="Effort of the build, 0 to 5 (default: TensorRT's own, 3).", rich_help_panel=_TENSORRT),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible", help="Runs on later TensorRT of the same major version too.", rich_help_panel=_TENSORRT
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible", help="Runs on every desktop GPU from Ampere on; slower.", rich_help_panel=_TENSORRT
        ),
    ] = False,
    write_onnx: Annotated[
        Path | None,
        typer.Option("--write-onnx", metavar="FILE", help="Write the graph that trtexec takes, and derive no engine."),
    ] = None,
    dialect: Annotated[
        Dialect | None, typer.Option(help="Of --write-onnx: weak for TensorRT 8.6 to 10.11, strong from 10.12 on.")
    ] = None,
    write_trt_cache: Annotated[
        Path | None,
        typer.Option(
            "--write-trt-cache",
            metavar="FILE",
            help="Write the calibration cache that the DLA needs, and its graph as FILE's .onnx.",
        ),
    ] = None,
    tensorrt_version: Annotated[
        str | None, typer.Option(help="Of --write-trt-cache: the one that reads it, for example 8.6.1.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a FILE that is there.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Derive the engines that this machine needs, from the graph and the ranges in the artifact; or files for trtexec.

    edge-resnet compile artifacts/resnet50-int8

    edge-resnet compile artifacts/resnet50-int8 --backend tensorrt --workspace 512 --level 5

    edge-resnet compile artifacts/resnet50-int8 --write-onnx resnet50.onnx --dialect strong
    """
    from edge_resnet.artifact.folder import open_artifact
    from edge_resnet.compiler.derive import compile_engine

    _check_options(write_onnx, dialect, write_trt_cache, tensorrt_version)
    opened = open_artifact(artifact)
    written = _write_files(opened, (write_onnx, dialect), (write_trt_cache, tensorrt_version), force=force)
    tuning = _tuning(workspace, level, version_compatible=version_compatible, hardware_compatible=hardware_compatible)
    with progress_bars() as progress:
        engines = [] if written else [compile_engine(opened, backend, tuning=tuning, progress=progress)]
        if simulate_int8:
            engines.append(compile_engine(opened, variant="simulated", progress=progress))
    folders = [str(folder) for folder in engines if folder is not None]
    if json_output:
        typer.echo(json.dumps({"artifact": str(artifact), "engines": folders, "written": written}))
        return
    for folder in folders:
        typer.echo(f"engine: {folder}")
    for file, command in written.items():
        typer.echo(f"wrote {file}: {command}")
    if not folders and not written:
        typer.echo(f"{artifact} is {opened.manifest.precision}: this backend runs its graph as it is, there is nothing to derive")


def _tuning(
    workspace: int | None, level: int | None, *, version_compatible: bool, hardware_compatible: bool
) -> EngineTuning | None:
    """None where nothing was asked for: then any engine that fits will do."""
    from edge_resnet.artifact.enginecache import EngineTuning

    tuning = EngineTuning(workspace, level, version_compatible, hardware_compatible)
    return None if tuning == EngineTuning() else tuning


def _check_options(write_onnx: Path | None, dialect: Dialect | None, write_trt_cache: Path | None, version: str | None) -> None:
    """Each file needs its word, and each word its file."""
    if (write_onnx is None) != (dialect is None):
        raise ConfigError(
            "--write-onnx and --dialect go together", hint="--dialect weak for TensorRT 8.6 to 10.11, strong from 10.12 on"
        )
    if (write_trt_cache is None) != (version is None):
        raise ConfigError(
            "--write-trt-cache and --tensorrt-version go together",
            hint="for example --tensorrt-version 8.6.1: it must be the reader's",
        )
    if write_onnx is not None and write_trt_cache is not None and write_trt_cache.with_suffix(".onnx") == write_onnx:
        raise ConfigError(f"{write_onnx} is also the name of the cache's graph", hint="give the two files two names")


def _write_files(
    artifact: Artifact, onnx: tuple[Path | None, Dialect | None], cache: tuple[Path | None, str | None], *, force: bool
) -> dict[str, str]:
    """Write what was asked for: file → the command that reads it."""
    from edge_resnet.compiler.derive import write_onnx, write_trt_cache

    written = {}
    path, dialect = onnx
    if path is not None and dialect is not None:
        write_onnx(artifact, path, dialect, force=force)
        flags = ["--stronglyTyped"] if dialect == "strong" else _PRECISION_FLAGS[artifact.manifest.precision]
        written[str(path)] = _trtexec(artifact, path, flags)
    path, version = cache
    if path is not None and version is not None:
        graph = write_trt_cache(artifact, path, version, force=force)
        kept = [f"{name}:fp16" for name in artifact.calibration().recipe.keep_high_precision]
        obey = ["--precisionConstraints=obey", f"--layerPrecisions={','.join(kept)}"] if kept else []
        dla = ["--useDLACore=0", "--allowGPUFallback"]
        written[str(path)] = _trtexec(artifact, graph, ["--int8", "--fp16", f"--calib={path}", *obey, *dla])
    return written


def _trtexec(artifact: Artifact, graph: Path, flags: list[str]) -> str:
    size, batch = artifact.manifest.model.input_size, artifact.manifest.batch.opt
    return shlex.join(["trtexec", f"--onnx={graph}", *flags, f"--shapes=images:{batch}x{size}x{size}x3"])
