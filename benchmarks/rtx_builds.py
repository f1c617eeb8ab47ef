"""Builds every network in every precision with TensorRT for RTX, and prints a Markdown table. Needs no GPU.

    python benchmarks/rtx_builds.py [--networks resnet18,resnet50] [--precisions fp16] [--batch 1,8,32] [--targets SM75]

build      processor seconds, on all threads, of parser and builder; that other processes run does not change them much
plan       MiB
layers     in the plan, those that only signal or wait among them
products   convolutions and matrix products by the type that they compute in
Adds       residual Adds inside a convolution, and those that are layers of their own

Weights are random and seeded, and the ranges of INT8 are one made-up number. The layers do not depend on them, the size of a plan
does a little; accuracy is not measured here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import get_args

import onnx
import torch

from edge_resnet.artifact.enginecache import EngineOptions
from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.fp16 import to_fp16_typed
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.builder import build_plan
from edge_resnet.core.records import BatchProfile, ModelSpec, Precision, Preprocess, QuantRecipe
from edge_resnet.measurement.layers import parse_layers
from edge_resnet.network import build_network
from edge_resnet.network.export import Deployable, export

NETWORKS = {
    "cifar20": ModelSpec("cifar", 20, "A", classes=10, input_size=32),
    "cifar56": ModelSpec("cifar", 56, "B", classes=10, input_size=32),
    **{f"resnet{depth}": ModelSpec("imagenet", depth) for depth in (18, 34, 50, 101, 152)},
}
AMAX = 4.0
HEADS = ("network", "precision", "build, s", "plan, MiB", "layers", "products", "Adds inside", "Adds alone")


def main() -> None:
    """Print a row per network and precision, as they are built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--precisions", default=",".join(get_args(Precision)))
    parser.add_argument("--batch", default="1", help="one number, or minimum, optimum and maximum")
    parser.add_argument("--targets", default="", help="compute capabilities; the library's default without")
    words = parser.parse_args()
    sizes = [int(size) for size in words.batch.split(",")]
    batch = BatchProfile(*(sizes if len(sizes) == 3 else sizes * 3))
    targets = tuple(filter(None, words.targets.split(",")))
    print(_row(HEADS), _row(["---"] * len(HEADS)), sep="\n")
    for network in words.networks.split(","):
        model = exported(NETWORKS[network])
        for precision in words.precisions.split(","):
            print(_row((network, precision, *measured(model, NETWORKS[network], precision, batch, targets))), flush=True)


def exported(spec: ModelSpec) -> onnx.ModelProto:
    """The FP32 graph of a network with seeded weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(Deployable(build_network(spec), Preprocess()).eval(), spec.input_size, path)
        return onnx.load(path)


def measured(
    model: onnx.ModelProto, spec: ModelSpec, precision: Precision, batch: BatchProfile, targets: tuple[str, ...]
) -> tuple[str, ...]:
    """Build a plan: its cells of the table."""
    graph = model
    if precision == "int8":
        table = CalibrationTable(dict.fromkeys(measured_tensors(model), AMAX), (), QuantRecipe(), 1, "", "")
        graph = quantize(model, table, "tensorrt")
    if precision != "fp32":
        graph = to_fp16_typed(graph)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(graph, path)
        options = EngineOptions(precision, spec.input_size, batch)
        began = time.process_time()
        plan = build_plan(PlanRequest(path, options, "strong", None, "tensorrt_rtx", targets))
        taken = time.process_time() - began
    layers = parse_layers(json.loads(plan.layers or "{}")).layers
    types = Counter(layer.precision for layer in layers if layer.multiplies)
    adds = Counter(layer.adds for layer in layers)
    products = ", ".join(f"{count} {dtype}" for dtype, count in types.most_common())
    size = f"{len(plan.content) / 2**20:.1f}"
    return f"{taken:.1f}", size, str(len(layers)), products, str(adds["fused"]), str(adds["alone"])


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
