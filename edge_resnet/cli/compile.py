"""``edge-resnet compile``: its options, and the trtexec commands for the files that it writes."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli.progress import progress_bars
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Typing

if TYPE_CHECKING:
    from edge_resnet.artifact.enginecache import EngineTuning
    from edge_resnet.artifact.folder import Artifact

__all__ = ["compile_"]

_TENSORRT = "TensorRT"
#: trtexec's flags for a weakly typed graph.
_PRECISION_FLAGS: dict[str, list[str]] = {"int8": ["--int8", "--fp16"], "fp16": ["--fp16"], "fp32": []}


@dataclass(frozen=True)
class _Files:
    """The files for trtexec that the options ask for, each with what it needs."""

    onnx: Path | None
    typing: Typing | None
    cache: Path | None
    tensorrt_version: str | None


def compile_(
    artifact: Annotated[Path, typer.Argument(help="Folder that build wrote.")],
    backend: Annotated[str, typer.Option(help="auto, tensorrt, tensorrt-rtx, openvino or onnxruntime.")] = "auto",
    target: Annotated[
        str | None,
        typer.Option(
            metavar="GPUS",
            help="With --backend tensorrt-rtx: ampere+ (Ampere to Blackwell), turing, or compute capabilities such as 8.6,8.9 "
            "(default: what suits this machine's GPU, else ampere+).",
            rich_help_panel=_TENSORRT,
        ),
    ] = None,
    simulate_int8: Annotated[
        bool, typer.Option("--simulate-int8", help="Also derive the simulation of TensorRT's INT8.")
    ] = False,
    workspace: Annotated[
        int | None,
        typer.Option(metavar="MiB", help="Memory that a layer may use (default: TensorRT's).", rich_help_panel=_TENSORRT),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(help="Optimization level of the build, 0 to 5 (default: TensorRT's, 3).", rich_help_panel=_TENSORRT),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="The engine also runs on later TensorRT of the same major version.",
            rich_help_panel=_TENSORRT,
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible",
            help="The engine runs on every desktop GPU from Ampere on, slower.",
            rich_help_panel=_TENSORRT,
        ),
    ] = False,
    write_onnx: Annotated[
        Path | None,
        typer.Option("--write-onnx", metavar="FILE", help="Write the graph for trtexec, and derive no engine."),
    ] = None,
    dialect: Annotated[
        Typing | None, typer.Option(help="With --write-onnx: weak for TensorRT 8.6 to 10.11, strong from 10.12 on.")
    ] = None,
    write_trt_cache: Annotated[
        Path | None,
        typer.Option(
            "--write-trt-cache",
            metavar="FILE",
            help="Write the calibration cache that the DLA needs, and its graph beside it as .onnx.",
        ),
    ] = None,
    tensorrt_version: Annotated[
        str | None, typer.Option(help="With --write-trt-cache: the version that reads it, for example 8.6.1.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a FILE that exists.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Derive the engines that this machine needs from the graph and the ranges in the artifact, or write files for trtexec.

    edge-resnet compile artifacts/resnet50-int8

    edge-resnet compile artifacts/resnet50-int8 --backend tensorrt --workspace 512 --level 5

    edge-resnet compile artifacts/resnet50-fp16 --backend tensorrt-rtx --target turing

    edge-resnet compile artifacts/resnet50-int8 --write-onnx resnet50.onnx --dialect strong
    """
    from edge_resnet import api
    from edge_resnet.artifact.enginecache import EngineTuning
    from edge_resnet.artifact.folder import open_artifact

    files = _Files(write_onnx, dialect, write_trt_cache, tensorrt_version)
    _check_options(files)
    opened = open_artifact(artifact)
    written = _write_files(opened, files, force=force)
    tuning = _tuning(EngineTuning(workspace, level, version_compatible, hardware_compatible, _targets(target)))
    with progress_bars() as progress:
        engines = [] if written else [api.compile(opened, backend=backend, tuning=tuning, progress=progress)]
        if simulate_int8:
            engines.append(api.compile(opened, variant="simulated", progress=progress))
    folders = [str(folder) for folder in engines if folder is not None]
    if json_output:
        typer.echo(json.dumps({"artifact": str(artifact), "engines": folders, "written": written}))
        return
    for folder in folders:
        typer.echo(f"engine: {folder}")
    for file, command in written.items():
        typer.echo(f"wrote {file}: {command}")
    if not folders and not written:
        typer.echo(
            f"{artifact} is {opened.manifest.precision}: this backend runs its graph as it is, so there is nothing to derive"
        )


def _tuning(tuning: EngineTuning) -> EngineTuning | None:
    """None if no option was given: then any engine that fits is accepted."""
    return None if tuning == type(tuning)() else tuning


def _targets(target: str | None) -> tuple[str, ...]:
    from edge_resnet.device.rtxtargets import parse_targets

    return () if target is None else parse_targets(target)


def _check_options(files: _Files) -> None:
    """Each file needs its option, and each option its file."""
    if (files.onnx is None) != (files.typing is None):
        raise ConfigError(
            "--write-onnx and --dialect go together", hint="--dialect weak for TensorRT 8.6 to 10.11, strong from 10.12 on"
        )
    if (files.cache is None) != (files.tensorrt_version is None):
        raise ConfigError(
            "--write-trt-cache and --tensorrt-version go together",
            hint="for example --tensorrt-version 8.6.1, the version of the TensorRT that reads the cache",
        )
    if files.onnx is not None and files.cache is not None and files.cache.with_suffix(".onnx") == files.onnx:
        raise ConfigError(f"{files.onnx} is also the name of the graph beside the cache", hint="choose two different names")


def _write_files(artifact: Artifact, files: _Files, *, force: bool) -> dict[str, str]:
    """Write what the options ask for: file → the trtexec command that reads it."""
    from edge_resnet.compiler.derive import write_onnx, write_trt_cache

    written = {}
    if files.onnx is not None and files.typing is not None:
        write_onnx(artifact, files.onnx, files.typing, force=force)
        flags = ["--stronglyTyped"] if files.typing == "strong" else _PRECISION_FLAGS[artifact.manifest.precision]
        written[str(files.onnx)] = _trtexec(artifact, files.onnx, flags)
    if files.cache is not None and files.tensorrt_version is not None:
        graph = write_trt_cache(artifact, files.cache, files.tensorrt_version, force=force)
        kept = [f"{name}:fp16" for name in artifact.calibration().recipe.keep_high_precision]
        obey = ["--precisionConstraints=obey", f"--layerPrecisions={','.join(kept)}"] if kept else []
        dla = ["--useDLACore=0", "--allowGPUFallback"]
        written[str(files.cache)] = _trtexec(artifact, graph, ["--int8", "--fp16", f"--calib={files.cache}", *obey, *dla])
    return written


def _trtexec(artifact: Artifact, graph: Path, flags: list[str]) -> str:
    size, batch = artifact.manifest.model.input_size, artifact.manifest.batch.opt
    return shlex.join(["trtexec", f"--onnx={graph}", *flags, f"--shapes=images:{batch}x{size}x{size}x3"])
