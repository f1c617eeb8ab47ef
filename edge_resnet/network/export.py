"""Exports a torch model to ONNX (uint8 images in, logits out) and verifies it. Does not know about INT8, labels or artifacts.

The TorchScript exporter at opset 17 is used on purpose: it writes GlobalAveragePool, which all TensorRT versions read the same
way. The newer exporter writes ReduceMean with its axes as an input; TensorRT 8.x ignores them silently and reduces all axes.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edge_resnet.artifact.graphcheck import INPUT, OPSET, OUTPUT
from edge_resnet.core.errors import ExportError
from edge_resnet.core.records import Preprocess
from edge_resnet.runtime.agreement import VERIFY_BATCHES, largest_difference

__all__ = ["INPUT", "OPSET", "OUTPUT", "VERIFY_BATCHES", "Deployable", "export", "verify"]

_log = logging.getLogger(__name__)


class Deployable(nn.Module):
    """A network with its normalisation in front: (N, H, W, 3) uint8 RGB in, (N, classes) float32 logits out.

    The Cast comes first: TensorRT 8.6 refuses any UINT8 tensor except the input itself.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        mean = torch.tensor(preprocess.mean, dtype=torch.float64) * 255
        scale = 1 / (torch.tensor(preprocess.std, dtype=torch.float64) * 255)
        self.register_buffer("mean", mean.float().view(1, 3, 1, 1))
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1))
        self.mean: torch.Tensor
        self.scale: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, H, W, 3) uint8 RGB → (N, classes) float32."""
        pixels = images.float().permute(0, 3, 1, 2)
        logits: torch.Tensor = self.network((pixels - self.mean) * self.scale)
        return logits


def export(model: Deployable, input_size: int, path: Path) -> None:
    """Write ``model`` as ONNX: opset 17, batch norm folded, dynamic batch, one file.

    Raises ExportError if the exporter fails or writes an opset that TensorRT 8.6 cannot read.
    """
    model.eval()
    example = torch.zeros(1, input_size, input_size, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces its successor on every call; see the module's docstring
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                do_constant_folding=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"torch could not export the network: {str(error).splitlines()[0]}") from error
    proto = onnx.load(path)
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset != OPSET:
        raise ExportError(f"torch wrote opset {opset} instead of {OPSET}", hint="use a torch version that exports opset 17")
    _dissolve_identities(proto.graph)
    _store_constants(proto.graph)
    _name_after_modules(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def verify(model: Deployable, path: Path, pixels: npt.NDArray[np.uint8]) -> float:
    """Compare torch with ONNX Runtime at batch 1, 2 and 5 on ``pixels`` (≥ 5, H, W, 3) uint8 RGB.

    Returns the largest absolute difference of a logit. Raises what ``largest_difference`` raises.
    """

    def torchs(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = model(torch.from_numpy(images)).numpy()
        return logits

    worst = largest_difference(path, pixels, torchs, "torch")
    _log.info("export verified: torch and ONNX Runtime differ by at most %.2e", worst)
    return worst


def _dissolve_identities(graph: onnx.GraphProto) -> None:
    """Remove the Identity nodes by which the exporter shares equal biases: a bias must be an initializer."""
    same: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Identity":
            same[node.output[0]] = same.get(node.input[0], node.input[0])
    kept = [node for node in graph.node if node.op_type != "Identity"]
    for node in kept:
        node.input[:] = [same.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)


def _store_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes, such as option A's fixed filter, into initializers, where quantization looks for weights."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)


def _name_after_modules(graph: onnx.GraphProto) -> None:
    """Name every node, tensor and weight after its torch module: ``layer1.0.conv1``, ``layer1.0.conv1.weight``.

    Calibration tables, Q/DQ listings and layer reports show these names.
    """
    weights = {tensor.name for tensor in graph.initializer}
    new: dict[str, str] = {INPUT: INPUT, OUTPUT: OUTPUT}
    for node in graph.node:
        node.name = _module_name(node.name, node.op_type)
        for output in node.output:
            new.setdefault(output, node.name)
        for name, role in zip(node.input[1:], ("weight", "bias"), strict=False):
            if name in weights:
                new.setdefault(name, f"{node.name}.{role}")
    if len(set(new.values())) != len(new):
        raise ExportError(
            "two tensors of the exported graph would get one name", hint="give the network's modules different names"
        )
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    del graph.value_info[:]


def _module_name(name: str, op_type: str) -> str:
    """``/network/layer1/layer1.0/conv1/Conv`` → ``layer1.0.conv1``; an Add of block layer1.0 → ``layer1.0.add``."""
    *modules, leaf = name.removeprefix("/network").strip("/").split("/")
    path: list[str] = []
    for module in modules:
        if path and module.startswith(path[-1] + "."):
            path.pop()  # torch repeats the container, as in layer1/layer1.0
        path.append(module)
    own = op_type in ("Conv", "Gemm", "GlobalAveragePool") or (path and path[-1].lower().startswith(op_type.lower()))
    return ".".join(path if own else [*path, leaf.lower()])
