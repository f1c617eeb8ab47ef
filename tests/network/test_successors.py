"""ResNeXt, Wide ResNet, deep stems, averaging projections and 3x3 stems: the reference's logits, and every later step on them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from _pytest.mark import ParameterSet
from exported import deployable, image_batch, logits
from torch import nn
from torch.nn import functional as F

from edge_resnet.artifact.graphcheck import OPERATORS
from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.fp16 import to_fp16_typed
from edge_resnet.compiler.graph.placement import tensorrt_pairs
from edge_resnet.compiler.graph.qdq import measured_tensors, quantize
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.modelnames import NAMED, spec_named
from edge_resnet.core.records import Layout, ModelSpec, QuantRecipe
from edge_resnet.network import build_network
from edge_resnet.network.export import export, verify
from edge_resnet.quantization.calibrate import collect, table_from
from edge_resnet.quantization.executor import Executor

TORCHVISIONS = ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")
TIMMS = tuple(name for name in NAMED if name not in TORCHVISIONS and not name.endswith("-small"))
#: One network for each difference in structure: groups, width, deep stem, averaging projection, 3x3 stem with and without a pool.
KINDS = ("resnext50_32x4d", "wide_resnet50_2", "resnet18d", "resnet50s", "resnet18-small", "resnet34-small-pooled")
#: The small ones of each difference; the others take most of the time.
QUICK = ("resnext50_32x4d", "resnet18", "resnet18d", "resnet34", "resnet50c", "resnet50s", "resnet18-small")


def chosen(names: Iterable[str], quick: Container[str] = QUICK) -> list[ParameterSet]:
    """The names as parameters, those that are not quick marked slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with batch norm statistics as after training, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(module.running_mean, 0, 0.2, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
    return network.eval()


def assert_same_logits(name: str, reference: nn.Module) -> None:
    """The network of that name, with the reference's state dict, has its logits on images of odd and even sizes."""
    with torch.device("meta"):  # no random weights for what is replaced at once
        network = build_network(replace(spec_named(name), classes=1000)).eval()
    network.load_state_dict(trained(reference).state_dict(), assign=True)
    for size in (64, 97):
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
        with torch.inference_mode():
            ours, theirs = network(images), reference(images)
        assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("name", chosen([*TORCHVISIONS, "resnet18", "resnet50"]))
def test_torchvisions_networks(name: str) -> None:
    """A state dict of torchvision's module gives its logits."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    assert_same_logits(name, models.get_model(name))


@pytest.mark.parametrize(
    "name", chosen([*TIMMS, "resnext50_32x4d", "wide_resnet50_2", "resnet34"], ("resnet18d", "resnet50c", "resnet50s"))
)
def test_timms_networks(name: str) -> None:
    """A state dict of timm's module gives its logits: deep stems, and averages over odd sides."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    assert_same_logits(name, timm.create_model(name))


@pytest.mark.parametrize("pooled", [False, True])
def test_small_images_stem(pooled: bool) -> None:
    """A 3x3 stem without a stride, and a max pool only where asked for: the function that CIFAR repositories write."""
    network = build_network(spec_named("resnet18-small-pooled" if pooled else "resnet18-small")).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = F.relu(network.bn1(F.conv2d(images, network.conv1.weight, padding=1)))
        x = F.max_pool2d(x, 3, 2, 1) if pooled else x
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
        assert x.shape[2:] == ((2, 2) if pooled else (4, 4))
        assert torch.allclose(network.fc(x.mean((2, 3))), network(images), atol=1e-5)


@pytest.mark.parametrize("name", chosen(KINDS, ("resnext50_32x4d", "resnet18d", "resnet18-small")))
def test_the_deployed_graph(name: str, tmp_path: Path) -> None:
    """Exported it agrees with torch, an artifact may hold its operators, and every quantized tensor has a pair."""
    spec = replace(spec_named(name), input_size=40, classes=10)
    network = deployable(spec)
    path = tmp_path / "model.onnx"
    export(network, spec.input_size, path)
    images = image_batch(5, 40)
    assert verify(network, path, images) < 1e-3
    model = onnx.load(path)
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    pairs = tensorrt_pairs(model)
    read = {reader for pair in pairs for reader in pair.readers}
    for node in model.graph.node:
        if node.op_type in ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool"):
            assert (node.name, 0) in read, node.name
    adds = [node.name for node in model.graph.node if node.op_type == "Add"]
    assert all(sum((add, index) in read for index in (0, 1)) == 1 for add in adds)
    with torch.inference_mode():
        ours = Executor(model, pairs).run(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(ours, logits(model, images), atol=2e-4 * max(1.0, float(np.abs(ours).max())))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("resnet18d", "resnet18-small") else pytest.mark.slow) for name in KINDS]
)
def test_int8_and_fp16_of_it(name: str, tmp_path: Path) -> None:
    """TensorRT's INT8 form, its FP16-typed graph and the CPU's form keep the logits about as well as a ResNet-18's."""
    spec = replace(spec_named(name), input_size=40, classes=10)
    path = tmp_path / "model.onnx"
    export(deployable(spec), spec.input_size, path)
    model, images = onnx.load(path), image_batch(16, 40)
    counted = collect(model, measured_tensors(model), [images], len(images))
    table: CalibrationTable = table_from(counted.histograms, QuantRecipe(method="max", images=len(images)), len(images), "", "")
    exact = logits(model, images)
    for form in ("tensorrt", "onnxruntime"):
        found = logits(quantize(model, table, form), images)
        assert float(((found - exact) ** 2).mean() / (exact**2).mean()) < 0.05, form
    half = to_fp16_typed(quantize(model, table, "tensorrt"))
    onnx.checker.check_model(half, full_check=True)
    assert float(np.abs(logits(to_fp16_typed(model), images) - exact).max()) < 0.02 * float(np.abs(exact).max())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: replace(spec_named("resnet18"), layout=Layout(groups=32, width_per_group=4)),
        lambda: replace(spec_named("resnet20-cifar"), layout=Layout(stem=(32, 32, 64))),
        lambda: replace(spec_named("resnet50"), layout=Layout(pooled=True)),
        lambda: replace(spec_named("resnet50"), shortcut="C", layout=Layout(avg_down=True)),
        lambda: ModelSpec("small", 26),
        lambda: Layout(groups=0),
        lambda: Layout(stem=(32, 32)),
        lambda: Layout(width_per_group=0),
    ],
)  # fmt: skip
def test_layouts_that_no_network_has(wrong: object) -> None:
    """Groups without bottlenecks, stems and pools of other families, and widths that are none are refused with a hint."""
    with pytest.raises(ConfigError) as caught:
        wrong()  # type: ignore[operator]
    assert caught.value.hint
