"""Small seeded networks, their exported graphs and smooth images, for the tests of the INT8 path."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from once import Once
from torch import nn

from edge_resnet.core.records import ModelSpec, Preprocess, Shortcut
from edge_resnet.network import build_network
from edge_resnet.network.export import INPUT, Deployable, export

#: The fixture ``once``, where the tests run: a network that several workers need is exported by one of them.
ONCE: list[Once] = []


def small(shortcut: Shortcut = "B", *, plain: bool = False, input_size: int = 16) -> ModelSpec:
    """The smallest residual network: eight layers, ten classes."""
    return ModelSpec("cifar", 8, shortcut, plain, classes=10, input_size=input_size)


def deployable(spec: ModelSpec, seed: int = 0, *, trained: bool = True) -> Deployable:
    """A seeded network; ``trained`` gives its batch norms statistics as after training, different for each channel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(spec)
        for module in network.modules():
            if trained and isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, 0, 0.2)
                nn.init.normal_(module.running_mean, 0, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return Deployable(network, Preprocess()).eval()


@functools.cache
def exported(spec: ModelSpec, seed: int = 0, *, trained: bool = True) -> bytes:
    """The ONNX file of ``deployable`` with the same arguments."""
    if not ONCE:
        return exported_here(spec, seed, trained=trained)
    name = hashlib.sha256(f"{spec} {seed} {trained}".encode()).hexdigest()[:16]
    made = ONCE[0](f"exported-{name}", lambda folder: _write(spec, seed, trained, folder / "model.onnx"))
    return (made / "model.onnx").read_bytes()


def exported_here(spec: ModelSpec, seed: int = 0, *, trained: bool = True) -> bytes:
    """As ``exported``, but kept neither in memory nor on disk: for the largest networks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _write(spec, seed, trained, path)
        return path.read_bytes()


def _write(spec: ModelSpec, seed: int, trained: bool, path: Path) -> None:
    export(deployable(spec, seed, trained=trained), spec.input_size, path)


def graph(spec: ModelSpec) -> onnx.ModelProto:
    """A fresh copy of the graph of ``exported``."""
    return onnx.load_from_string(exported(spec))


def image_batch(count: int, size: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth images, (count, size, size, 3) uint8: each a few waves in each colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = rng.uniform(0.3, 2.5, (count, 3, 2, 1, 1))
    phase = waves[:, :, 0] * x + waves[:, :, 1] * y + rng.uniform(0, 1, (count, 3, 1, 1))
    return np.ascontiguousarray((127.5 + 127.5 * np.sin(2 * np.pi * phase)).astype(np.uint8).transpose(0, 2, 3, 1))


def logits(model: onnx.ModelProto | bytes | Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The logits of the graph as written, (N, classes) float32, by ONNX Runtime without fusing or moving operators."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    result: npt.NDArray[np.float32] = session.run(None, {INPUT: images})[0]
    return result
