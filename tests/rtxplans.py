"""Plans of the real TensorRT for RTX for tests, each built once for all workers: graphs with seeded weights and made-up ranges.

What is fused, and in which type a layer computes, does not depend on weights and ranges.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx
from exported import exported

from edge_resnet.artifact.enginecache import EngineOptions
from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.fp16 import to_fp16_typed
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.builder import build_plan
from edge_resnet.core.records import BatchProfile, ModelSpec, Precision, QuantRecipe, Typing
from edge_resnet.measurement.layers import Layer, LayerListing, parse_layers

__all__ = ["NETWORKS", "BuiltPlan", "build_into", "graph_of", "products", "read_built", "request_for"]

NETWORKS = {
    "cifar8": ModelSpec("cifar", 8, "B", classes=10, input_size=16),
    "cifar20": ModelSpec("cifar", 20, "A", classes=10, input_size=32),
    "cifar56": ModelSpec("cifar", 56, "B", classes=10, input_size=32),
    **{f"resnet{depth}": ModelSpec("imagenet", depth) for depth in (18, 34, 50, 101, 152)},
}
#: Of every tensor.
_AMAX = 4.0


@dataclass(frozen=True)
class BuiltPlan:
    """``graph``: what the plan was built from. ``reports``: what the build said of its progress."""

    content: bytes
    listing: LayerListing
    reports: list[tuple[str, int, int]]
    graph: onnx.ModelProto


def graph_of(network: str, precision: Precision, typing: Typing = "strong") -> onnx.ModelProto:
    """The graph that a network's artifact of that precision gives TensorRT."""
    model = onnx.load_from_string(exported(NETWORKS[network]))
    if precision == "int8":
        amax = dict.fromkeys(measured_tensors(model), _AMAX)
        model = quantize(model, CalibrationTable(amax, (), QuantRecipe(), 1, "", ""), "tensorrt")
    return to_fp16_typed(model) if typing == "strong" and precision != "fp32" else model


def request_for(
    graph: Path, network: str, precision: Precision, batch: BatchProfile | None = None, targets: tuple[str, ...] = ()
) -> PlanRequest:
    """What to ask TensorRT for RTX for a plan of that graph."""
    options = EngineOptions(precision, NETWORKS[network].input_size, batch or BatchProfile())
    return PlanRequest(graph, options, "strong", None, "tensorrt_rtx", targets)


def build_into(folder: Path, network: str, precision: Precision, batch: BatchProfile | None = None) -> None:
    """Build the plan of a network, and leave all that tests ask of it in the folder."""
    graph = folder / "model.onnx"
    onnx.save(graph_of(network, precision), graph)
    reports: list[tuple[str, int, int]] = []
    plan = build_plan(request_for(graph, network, precision, batch), lambda *report: reports.append(report))
    (folder / "plan.engine").write_bytes(plan.content)
    (folder / "layers.json").write_text(plan.layers or "null", encoding="utf-8")
    (folder / "reports.json").write_text(json.dumps(reports), encoding="utf-8")


def read_built(folder: Path) -> BuiltPlan:
    """What ``build_into`` left there."""
    listing = parse_layers(json.loads((folder / "layers.json").read_bytes()))
    reports = [tuple(report) for report in json.loads((folder / "reports.json").read_bytes())]
    return BuiltPlan((folder / "plan.engine").read_bytes(), listing, reports, onnx.load(folder / "model.onnx"))


def products(plan: BuiltPlan) -> list[Layer]:
    """The convolutions and matrix products of the plan."""
    return [layer for layer in plan.listing.layers if layer.multiplies]
