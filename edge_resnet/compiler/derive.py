"""Artifact → what a machine runs: its backend's engine, or files for TensorRT's own tools. Runs none of them.

A backend declares the kind of form that it runs; a new kind of form is one function here and one line in ``DERIVATIONS``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast, get_args

import onnx

from edge_resnet.artifact.enginecache import FACTS, LAYERS, PLAN, EngineTuning, engine_key, find_engine, store_engine
from edge_resnet.artifact.folder import MODEL, Artifact, write_json
from edge_resnet.compiler.graph.corrections import apply, read_corrections, read_graph
from edge_resnet.compiler.graph.fp16 import to_fp16_typed
from edge_resnet.compiler.graph.qdq import QdqForm, quantize
from edge_resnet.compiler.graph.trtcache import calibration_cache
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.child import build_in_child
from edge_resnet.compiler.tensorrt.timingcache import timings_path
from edge_resnet.core.errors import BuildError, CalibrationError, ConfigError, ExportError
from edge_resnet.core.files import write_together
from edge_resnet.core.records import Progress, Typing
from edge_resnet.runtime.backend import (
    BACKENDS,
    BackendTable,
    EngineRequest,
    FormKind,
    Variant,
    backend_info,
    load_backend,
    resolve_backend,
)

__all__ = ["DERIVATIONS", "compile_engine", "corrected_graph", "tensorrt_graph", "write_onnx", "write_trt_cache"]

_log = logging.getLogger(__name__)


def compile_engine(
    artifact: Artifact,
    backend: str = "auto",
    variant: Variant = "native",
    *,
    tuning: EngineTuning | None = None,
    progress: Progress | None = None,
    table: BackendTable = BACKENDS,
) -> Path | None:
    """Derive the engine unless the artifact holds it, and return its folder; None if the backend runs the graph as it is.

    An engine is kept if it is whole and was derived from the same source; with a ``tuning``, only an engine with that tuning is.
    Raises what the derivation raises, and ConfigError for a tuning that the backend does not have.
    """
    name = resolve_backend(backend, variant, table)
    request = load_backend(name, table).engine_request(artifact, variant, tuning)
    if request is None:
        return None
    derive = DERIVATIONS[backend_info(name, table).form.kind]
    return find_engine(artifact, request.key) or derive(artifact, request, progress)


def corrected_graph(artifact: Artifact) -> onnx.ModelProto:
    """The FP32 graph that the calibration table belongs to: ``model.onnx`` with the artifact's corrections, if it has any."""
    return apply(read_graph(artifact), read_corrections(artifact))


def tensorrt_graph(artifact: Artifact, typing: Typing) -> onnx.ModelProto:
    """The graph that TensorRT takes, with Q/DQ pairs if the artifact is INT8: weakly typed for TensorRT 8.6 to 10.11, strongly
    typed from 10.12 on.

    Raises ConfigError for an unknown typing, and for the strongly typed graph of an FP32 artifact, which is ``model.onnx``.
    """
    precision = artifact.manifest.precision
    if typing not in get_args(Typing):
        hint = "weak for TensorRT 8.6 to 10.11, strong from 10.12 on"
        raise ConfigError(f"no dialect is called {typing!r}", hint=hint)
    if precision == "fp32" and typing == "strong":
        raise ConfigError(
            f"{artifact.folder} is FP32: its strongly typed graph is {MODEL} itself",
            hint="edge-resnet compile --dialect weak writes that graph",
        )
    graph = _qdq_graph(artifact, "tensorrt") if precision == "int8" else read_graph(artifact)
    return to_fp16_typed(graph) if typing == "strong" else graph


def write_onnx(artifact: Artifact, path: Path, typing: Typing, *, force: bool = False) -> None:
    """Write ``tensorrt_graph`` to a file, whole or not at all. Raises BuildError if the file exists and ``force`` is false."""
    _check_free([path], artifact, force=force)
    try:
        graph = tensorrt_graph(artifact, typing)
    except (CalibrationError, ExportError) as error:
        # Only here is there a choice: the typing of an engine is that of the installed TensorRT.
        raise error.with_hint("--dialect weak writes what TensorRT 8.6 to 10.11 read") if typing == "strong" else error from error
    write_together({path: graph.SerializeToString()}, force=force)


def write_trt_cache(artifact: Artifact, path: Path, tensorrt_version: str, *, force: bool = False) -> Path:
    """Write TensorRT's calibration cache of an INT8 artifact, and beside it the FP32 graph that it belongs to, as ``.onnx``.

    Returns the path of the graph. Raises ConfigError if ``path`` itself ends in ``.onnx``, and BuildError as write_onnx does.
    """
    graph_path = path.with_suffix(".onnx")
    if path == graph_path:
        raise ConfigError(f"{path} is the name of the graph that belongs to the cache", hint="choose a suffix such as .cache")
    _check_free([path, graph_path], artifact, force=force)
    graph = corrected_graph(artifact)
    cache = calibration_cache(graph, artifact.calibration(), tensorrt_version)
    write_together({graph_path: graph.SerializeToString(), path: cache.encode()}, force=force)
    return graph_path


def _derive_qdq(artifact: Artifact, request: EngineRequest, progress: Progress | None) -> Path:  # noqa: ARG001 - one signature
    """FP32 graph and calibration table → the graph with Q/DQ pairs."""
    graph = _qdq_graph(artifact, cast("QdqForm", request.form))
    return store_engine(artifact, request.key, request.form, lambda folder: onnx.save(graph, folder / MODEL))


def _derive_plan(artifact: Artifact, request: EngineRequest, progress: Progress | None) -> Path:
    """The graph with the typing of the installed library → its plan, with the plan's facts and the listing of its layers."""
    facts = request.facts
    assert facts is not None, "a backend that runs plans requests them by their facts"
    if request.caveat:
        _log.warning("%s", request.caveat)

    def write(folder: Path) -> None:
        timings = timings_path(facts.tensorrt, facts.gpu, facts.compute_capability) if facts.gpu else None
        targets = tuple(f"SM{capability.replace('.', '')}" for capability in facts.options.tuning.targets)
        plan = PlanRequest(folder / MODEL, facts.options, facts.dialect, timings, facts.library, targets)
        graph = read_graph(artifact) if request.form == "fp32" else tensorrt_graph(artifact, facts.dialect)
        onnx.save(graph, plan.graph)
        built = build_in_child(plan, folder / PLAN, progress)
        plan.graph.unlink()
        write_json(folder / FACTS, facts)
        if built.layers is not None:
            (folder / LAYERS).write_text(built.layers, encoding="utf-8")

    return store_engine(artifact, engine_key(facts), request.form, write)


def _qdq_graph(artifact: Artifact, form: QdqForm) -> onnx.ModelProto:
    return quantize(read_graph(artifact), artifact.calibration(), form, read_corrections(artifact))


def _check_free(paths: list[Path], artifact: Artifact, *, force: bool) -> None:
    for path in paths:
        if path.resolve().is_relative_to(artifact.folder.resolve()):
            hint = "choose a path outside it"
            raise BuildError(f"{path} lies in the artifact, which may only hold the files in its manifest", hint=hint)
        if path.is_dir():
            raise BuildError(f"{path} is a folder", hint="name a file")
        if path.exists() and not force:
            raise BuildError(f"{path} exists already", hint="choose another name, or replace it with --force")


#: Kind of form → how it is derived. A backend that runs the graph as it is requests no engine.
DERIVATIONS: Mapping[FormKind, Callable[[Artifact, EngineRequest, Progress | None], Path]] = MappingProxyType(
    {"qdq": _derive_qdq, "plan": _derive_plan}
)
