"""Artifact → what a machine runs: its backend's engine, or files for TensorRT's own tools. Derives each form; opens none of them.

A backend whose engines are derived here is one function and one line in ``DERIVATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, cast, get_args

import onnx

from edge_resnet.artifact.enginecache import EngineTuning, find_engine, store_engine
from edge_resnet.artifact.folder import MODEL, Artifact, write_json
from edge_resnet.compiler.graph.corrections import apply, read_corrections
from edge_resnet.compiler.graph.fp16 import to_fp16_typed
from edge_resnet.compiler.graph.qdq import QdqForm, quantize
from edge_resnet.compiler.graph.trtcache import calibration_cache
from edge_resnet.compiler.tensorrt.child import build_in_child
from edge_resnet.compiler.tensorrt.timingcache import timings_path
from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.core.files import write_together
from edge_resnet.core.records import Progress
from edge_resnet.runtime.backend import EngineRequest, Variant, load_backend, resolve_backend

__all__ = ["DERIVATIONS", "Dialect", "compile_engine", "corrected_graph", "tensorrt_graph", "write_onnx", "write_trt_cache"]

#: How precision is told to TensorRT: ``weak`` by flags beside an FP32-typed graph (8.6 to 10.11), ``strong`` by the types of the
#: graph itself (10.12 to 11).
Dialect: TypeAlias = Literal["weak", "strong"]


def compile_engine(
    artifact: Artifact,
    backend: str = "auto",
    variant: Variant = "native",
    *,
    tuning: EngineTuning | None = None,
    progress: Progress | None = None,
) -> Path | None:
    """Make sure that the engine is there, and return its folder; None where the backend runs the artifact's graph itself.

    An engine that is cached, whole and made from the same truth is kept; with a ``tuning``, only one of that very tuning.
    Raises what the derivation raises, and ConfigError for a tuning that is not the backend's.
    """
    name = resolve_backend(backend, variant)
    request = load_backend(name).engine_request(artifact, variant, tuning)
    if request is None:
        return None
    return find_engine(artifact, request.key) or DERIVATIONS[name](artifact, request, progress)


def corrected_graph(artifact: Artifact) -> onnx.ModelProto:
    """The FP32 graph that the calibration table's names are of: ``model.onnx`` with the corrections, where there are any."""
    return apply(onnx.load(artifact.model_path), read_corrections(artifact))


def tensorrt_graph(artifact: Artifact, dialect: Dialect) -> onnx.ModelProto:
    """The graph that TensorRT takes: with Q/DQ where the artifact is INT8, typed by the dialect.

    Raises ConfigError for an unknown dialect, and for the strong one of an FP32 artifact, where the types are right already.
    """
    precision = artifact.manifest.precision
    if dialect not in get_args(Dialect):
        hint = "weak for TensorRT 8.6 to 10.11, strong from 10.12 on"
        raise ConfigError(f"no dialect is called {dialect!r}", hint=hint)
    if precision == "fp32" and dialect == "strong":
        raise ConfigError(
            f"{artifact.folder} is FP32: strongly typed, it is the graph that it is", hint="--dialect weak writes that"
        )
    graph = _qdq_graph(artifact, "tensorrt") if precision == "int8" else onnx.load(artifact.model_path)
    return to_fp16_typed(graph) if dialect == "strong" else graph


def write_onnx(artifact: Artifact, path: Path, dialect: Dialect, *, force: bool = False) -> None:
    """Write ``tensorrt_graph`` to a file, whole or not at all. Raises BuildError where one is there and not ``force``."""
    _check_free([path], artifact, force=force)
    write_together({path: tensorrt_graph(artifact, dialect).SerializeToString()})


def write_trt_cache(artifact: Artifact, path: Path, tensorrt_version: str, *, force: bool = False) -> Path:
    """Write the calibration cache of an INT8 artifact, and beside it the FP32 graph that it belongs to, with suffix ``.onnx``.

    Returns the path of the graph. Raises ConfigError where the cache would have that suffix, and BuildError as write_onnx does.
    """
    graph_path = path.with_suffix(".onnx")
    if path == graph_path:
        raise ConfigError(f"{path} is the name of the graph that goes with the cache", hint="choose a suffix such as .cache")
    _check_free([path, graph_path], artifact, force=force)
    graph = corrected_graph(artifact)
    cache = calibration_cache(graph, artifact.calibration(), tensorrt_version)
    write_together({graph_path: graph.SerializeToString(), path: cache.encode()})
    return graph_path


def _derive_qdq(artifact: Artifact, request: EngineRequest, progress: Progress | None) -> Path:  # noqa: ARG001 - one signature
    """FP32 graph and ranges → the graph with Q/DQ pairs that ONNX Runtime and OpenVINO fuse."""
    graph = _qdq_graph(artifact, cast("QdqForm", request.form))
    return store_engine(artifact, request.key, request.form, lambda folder: onnx.save(graph, folder / MODEL))


def _derive_plan(artifact: Artifact, request: EngineRequest, progress: Progress | None) -> Path:
    """The graph in the dialect of the TensorRT at hand → its plan, with what it holds for and what became of its layers."""
    from edge_resnet.runtime.tensorrt.plans import FACTS, LAYERS, PLAN, wanted  # needs TensorRT

    variant: Variant = "native" if request.form == artifact.manifest.precision else "reference"
    facts = wanted(artifact, variant, request.tuning)

    def write(folder: Path) -> None:
        graph = folder / MODEL
        whole = onnx.load(artifact.model_path) if request.form == "fp32" else tensorrt_graph(artifact, facts.dialect)
        onnx.save(whole, graph)
        timings = timings_path(facts.tensorrt, facts.gpu, facts.compute_capability)
        built = build_in_child(graph, folder / PLAN, facts.options, facts.dialect, timings=timings, progress=progress)
        graph.unlink()
        write_json(folder / FACTS, facts)
        if built.layers is not None:
            (folder / LAYERS).write_text(built.layers, encoding="utf-8")

    return store_engine(artifact, request.key, request.form, write)


def _qdq_graph(artifact: Artifact, form: QdqForm) -> onnx.ModelProto:
    return quantize(onnx.load(artifact.model_path), artifact.calibration(), form, read_corrections(artifact))


def _check_free(paths: list[Path], artifact: Artifact, *, force: bool) -> None:
    for path in paths:
        if path.resolve().is_relative_to(artifact.folder.resolve()):
            raise BuildError(f"{path} would lie in the artifact, which holds what its manifest lists", hint="write elsewhere")
        if path.is_dir():
            raise BuildError(f"{path} is a folder", hint="name a file")
        if path.exists() and not force:
            raise BuildError(f"{path} exists already", hint="choose another name, or replace it with --force")


DERIVATIONS: Mapping[str, Callable[[Artifact, EngineRequest, Progress | None], Path]] = MappingProxyType(
    {"onnxruntime": _derive_qdq, "openvino": _derive_qdq, "tensorrt": _derive_plan}
)
