"""Parameters and multiply-adds of the networks that can be built, measured, beside published figures. Loads no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from edge_resnet.core.modelnames import NAMED, spec_named
from edge_resnet.core.records import ModelSpec
from edge_resnet.network.resnet import build_network, has_bottlenecks

__all__ = ["CIFAR10_NAMES", "NetworkFacts", "NetworkSize", "class_names", "known_networks", "measure", "paper_table"]

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: Depth → multiply-adds in 10⁹ at 224 x 224 (He et al. 2015, table 1).
PAPER_GMACS = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}
#: Depth → parameters in 10⁶ (table 6).
PAPER_CIFAR_MPARAMS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}

#: Top-1 on ImageNet in percent, as torchvision publishes it for its weights IMAGENET1K_V1 and V2, whose own
#: table takes a second to import. A test compares the two.
PUBLISHED_TOP1: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "resnet18": {"v1": 69.758},
        "resnet34": {"v1": 73.314},
        "resnet50": {"v1": 76.13, "v2": 80.858},
        "resnet101": {"v1": 77.374, "v2": 81.886},
        "resnet152": {"v1": 78.312, "v2": 82.284},
        "resnext50_32x4d": {"v1": 77.618, "v2": 81.198},
        "resnext101_32x8d": {"v1": 79.312, "v2": 82.834},
        "resnext101_64x4d": {"v1": 83.246},
        "wide_resnet50_2": {"v1": 78.468, "v2": 81.602},
        "wide_resnet101_2": {"v1": 78.848, "v2": 82.51},
    }
)


@dataclass(frozen=True)
class NetworkSize:
    """Trainable parameters, and multiply-adds for one image."""

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class NetworkFacts:
    """One network beside the paper's figure for it.

    ``multiply_adds``: as built here. ``paper_stride_multiply_adds``: with the stride where the paper has it.
    ``paper_figure``: multiply-adds in 10⁹ for ImageNet, parameters in 10⁶ for CIFAR; None for networks that it does not have.
    ``published_top1``: ``v1``, ``v2`` → top-1 on ImageNet in percent, as torchvision publishes it for these weights.
    """

    spec: ModelSpec
    block: str
    layers: int
    parameters: int
    multiply_adds: int
    paper_stride_multiply_adds: int
    paper_figure: float | None
    published_top1: Mapping[str, float] = field(default_factory=dict)


def paper_table() -> list[NetworkFacts]:
    """The paper's networks (ImageNet with option B, CIFAR with option A), measured on their modules."""
    imagenet = [(ModelSpec("imagenet", depth), figure) for depth, figure in PAPER_GMACS.items()]
    cifar = [(ModelSpec("cifar", depth, "A", classes=10, input_size=32), fig) for depth, fig in PAPER_CIFAR_MPARAMS.items()]
    return [_facts(spec, figure) for spec, figure in (*imagenet, *cifar)]


def known_networks() -> list[NetworkFacts]:
    """The paper's networks, then those of ``NAMED``, with what torchvision publishes about its weights of them."""
    found = [*paper_table(), *(_facts(spec_named(name), None) for name in NAMED)]
    return [replace(facts, published_top1=PUBLISHED_TOP1.get(facts.spec.name, {})) for facts in found]


def measure(spec: ModelSpec, *, stride_on_first: bool = False) -> NetworkSize:
    """Count parameters and the multiply-adds of convolutions and the classifier, as the paper does.

    Runs on torch's meta device, which needs neither memory nor arithmetic.
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
    with torch.inference_mode(), _ShapesAlone():
        network(image)
    return NetworkSize(parameters, sum(counts))


def class_names(spec: ModelSpec) -> tuple[str, ...] | None:
    """The names of ImageNet's 1000 or CIFAR-10's ten classes; None for another number of classes."""
    if spec.family != "imagenet":
        return CIFAR10_NAMES if spec.classes == len(CIFAR10_NAMES) else None
    if spec.classes != 1000:
        return None
    from torchvision.models import get_model_weights

    weights = get_model_weights("resnet50")  # all of them name the same classes
    return tuple(next(iter(weights)).meta["categories"])


def _facts(spec: ModelSpec, figure: float | None) -> NetworkFacts:
    size = measure(spec)
    bottleneck = has_bottlenecks(spec)
    paper_stride = measure(spec, stride_on_first=True).multiply_adds if bottleneck and figure is not None else size.multiply_adds
    return NetworkFacts(
        spec=spec,
        block="bottleneck" if bottleneck else "basic",
        layers=spec.depth,
        parameters=size.parameters,
        multiply_adds=size.multiply_adds,
        paper_stride_multiply_adds=paper_stride,
        paper_figure=figure,
    )


class _ShapesAlone(TorchFunctionMode):
    """Replaces functions by others of the same shape that torch has for the meta device: it computes these in Python there, and
    the first call imports its compiler, which takes two seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.add:
            return args[0]
        if func is functional.adaptive_avg_pool2d:
            return functional.adaptive_max_pool2d(*args)
        if func is functional.linear:
            return args[0].new_empty(len(args[0]), len(args[1]))
        return func(*args, **(kwargs or {}))


def _leave_out_elementwise(network: nn.Module) -> None:
    """Replace modules that are not counted and keep the shape: they take half of the time for 1202 layers."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.ReLU):
                setattr(module, name, nn.Identity())


def _multiply_adds(module: nn.Module, out: torch.Tensor) -> int:
    """Multiply-adds of one layer: each output value takes as many as its filter has weights."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return out.numel() * weight[0].numel()
