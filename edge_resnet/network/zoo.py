"""The known networks, measured: layers, parameters and multiply-adds beside the paper's figures. Knows nothing of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edge_resnet.core.records import ModelSpec, paper_network
from edge_resnet.network.resnet import BOTTLENECK_FROM, build_network

__all__ = ["CIFAR10_NAMES", "NetworkFacts", "class_names", "measure", "paper_table"]

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: Depth → multiply-adds in 10⁹ at 224 x 224 (He et al. 2015, table 1).
PAPER_GMACS = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}
#: Depth → parameters in 10⁶ (table 6).
PAPER_CIFAR_MPARAMS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}


@dataclass(frozen=True)
class NetworkFacts:
    """One network: ``multiply_adds`` as built here, ``paper_stride_multiply_adds`` with the paper's placement of the
    stride, and the paper's figure: multiply-adds in 10⁹ for ImageNet, parameters in 10⁶ for CIFAR."""

    spec: ModelSpec
    block: str
    layers: int
    parameters: int
    multiply_adds: int
    paper_stride_multiply_adds: int
    paper_figure: float


def paper_table() -> list[NetworkFacts]:
    """The paper's networks, ImageNet's with option B and CIFAR's with option A, measured from their modules."""
    imagenet = [(paper_network("imagenet", depth), figure) for depth, figure in PAPER_GMACS.items()]
    cifar = [(paper_network("cifar", depth), figure) for depth, figure in PAPER_CIFAR_MPARAMS.items()]
    return [_facts(spec, figure) for spec, figure in (*imagenet, *cifar)]


def measure(spec: ModelSpec, *, stride_on_first: bool = False) -> tuple[int, int]:
    """Parameters and multiply-adds of one image: convolutions and the classifier, as the paper counts.

    Runs on torch's meta device: shapes without memory or arithmetic.
    """
    with torch.device("meta"):
        network = build_network(spec, stride_on_first=stride_on_first).eval()
        image = torch.empty(1, 3, spec.input_size, spec.input_size)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    _leave_out_elementwise(network)
    counts: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda m, _, out: counts.append(_multiply_adds(m, out)))
    with torch.inference_mode():
        network(image)
    return parameters, sum(counts)


def class_names(spec: ModelSpec) -> tuple[str, ...] | None:
    """The names of ImageNet's 1000 or CIFAR-10's ten classes; None for a head of another width."""
    if spec.family == "cifar":
        return CIFAR10_NAMES if spec.classes == len(CIFAR10_NAMES) else None
    if spec.classes != 1000:
        return None
    from torchvision.models import get_model_weights

    weights = get_model_weights(f"resnet{spec.depth}")
    return tuple(next(iter(weights)).meta["categories"])


def _facts(spec: ModelSpec, figure: float) -> NetworkFacts:
    parameters, multiply_adds = measure(spec)
    bottleneck = spec.family == "imagenet" and spec.depth >= BOTTLENECK_FROM
    as_paper = measure(spec, stride_on_first=True)[1] if bottleneck else multiply_adds
    return NetworkFacts(spec, "bottleneck" if bottleneck else "basic", spec.depth, parameters, multiply_adds, as_paper, figure)


def _leave_out_elementwise(network: nn.Module) -> None:
    """Replace what the paper does not count and what keeps shapes: it is half the time that 1202 layers take."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.ReLU):
                setattr(module, name, nn.Identity())


def _multiply_adds(module: nn.Module, out: torch.Tensor) -> int:
    """Products summed by one layer: every output value takes as many as its filter has weights."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return out.numel() * weight[0].numel()
