"""The residual networks of He et al. 2015 (arXiv:1512.03385), their plain twins, and their successors of the same blocks.

The ImageNet networks with option B have torchvision's state dict keys and its bottleneck, with the stride on the 3x3
convolution. The paper has the stride on the first 1x1; ``stride_on_first`` builds that variant. Successors: groups and widths of
ResNeXt (arXiv:1611.05431) and Wide ResNet (arXiv:1605.07146), with torchvision's keys; deep stems and averaging projections
(arXiv:1812.01187), with timm's. Does not know about weights or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from edge_resnet.core.records import Layout, ModelSpec, Shortcut

__all__ = ["BasicBlock", "Bottleneck", "PadShortcut", "ResNet", "build_network", "has_bottlenecks"]

#: ImageNet networks have bottlenecks from this depth on (section 4.1).
BOTTLENECK_FROM = 50
#: Blocks per stage of the ImageNet networks (table 1).
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class _BlockKind:
    """What all blocks of a network have in common. ``shortcut`` is None for a plain network."""

    shortcut: Shortcut | None
    layout: Layout
    stride_on_first: bool = False


class ResNet(nn.Module):
    """(N, 3, H, W) float32, normalised → logits (N, classes) float32.

    ``stride_on_first``: put a bottleneck's stride on its first 1x1 convolution, like the paper and unlike torchvision.
    """

    def __init__(self, spec: ModelSpec, *, stride_on_first: bool = False) -> None:
        super().__init__()
        kind = _BlockKind(None if spec.plain else spec.shortcut, spec.layout, stride_on_first)
        wide = spec.family != "cifar"
        width = 64 if wide else 16
        blocks = STAGES[spec.depth] if wide else ((spec.depth - 2) // 6,) * 3
        block = Bottleneck if has_bottlenecks(spec) else BasicBlock
        self.conv1 = _stem(spec, width)
        channels = spec.layout.stem[-1] if spec.layout.stem else width
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        pooled = spec.family == "imagenet" or spec.layout.pooled
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pooled else nn.Identity()
        self._stages = []
        for index, count in enumerate(blocks):
            planes = width * 2**index
            layers = []
            for position in range(count):
                layers.append(block(channels, planes, 2 if index > 0 and position == 0 else 1, kind))
                channels = planes * block.expansion
            name = f"layer{index + 1}"
            self.add_module(name, nn.Sequential(*layers))
            self._stages.append(name)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, spec.classes)
        _initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) float32 → (N, classes) float32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self._stages:
            x = getattr(self, name)(x)
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left). (N, channels, H, W) → (N, planes, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int, kind: _BlockKind) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels, planes, stride, kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Residual branch, shortcut, ReLU."""
        out = self.relu(self.bn1(self.conv1(x)))
        return _joined(self.bn2(self.conv2(out)), x, self.downsample, self.relu)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions (figure 5, right). (N, channels, H, W) → (N, 4 * planes, H / stride, W / stride).

    The 3x3 convolution has groups, and planes * width_per_group / 64 channels in each.
    """

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int, kind: _BlockKind) -> None:
        super().__init__()
        first, second = (stride, 1) if kind.stride_on_first else (1, stride)
        layout = kind.layout
        width = planes * layout.width_per_group // 64 * layout.groups
        self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, groups=layout.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels, planes * self.expansion, stride, kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Residual branch, shortcut, ReLU."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return _joined(self.bn3(self.conv3(out)), x, self.downsample, self.relu)


class PadShortcut(nn.Module):
    """Option A: subsample by the stride and pad with zero channels, half of them on each side (which checkpoints rely on).

    It is exported to ONNX as an equivalent fixed 1x1 convolution: TensorRT fuses that with the following Add, whereas Slice and
    Pad remain separate kernels.
    """

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (planes - channels) // 2
        self.after = planes - channels - self.before
        rows = torch.zeros(planes, channels, 1, 1)
        rows[self.before : self.before + channels, :, 0, 0].fill_diagonal_(1)
        self.register_buffer("rows", rows, persistent=False)
        self.rows: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) → (N, planes, ceil(H / stride), ceil(W / stride))."""
        if torch.onnx.is_in_onnx_export():
            return F.conv2d(x, self.rows, stride=self.stride)
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def build_network(spec: ModelSpec, *, stride_on_first: bool = False) -> ResNet:
    """Build the network of ``spec`` with random weights from torch's global generator."""
    return ResNet(spec, stride_on_first=stride_on_first)


def has_bottlenecks(spec: ModelSpec) -> bool:
    """Whether the blocks are bottlenecks: those of the family ``cifar`` never are."""
    return spec.family != "cifar" and spec.depth >= BOTTLENECK_FROM


def _stem(spec: ModelSpec, width: int) -> nn.Module:
    """The convolutions before the first batch norm: one of 7x7 or 3x3, or three of 3x3 with two batch norms between them."""
    if not spec.layout.stem:
        kernel, stride = (7, 2) if spec.family == "imagenet" else (3, 1)
        return nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False)
    first, second, third = spec.layout.stem
    return nn.Sequential(
        nn.Conv2d(3, first, 3, 2, 1, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, 1, 1, bias=False),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.Conv2d(second, third, 3, 1, 1, bias=False),
    )


def _shortcut(channels: int, planes: int, stride: int, kind: _BlockKind) -> nn.Module | None:
    """The module on the shortcut: None for an identity; ``_Absent`` in a plain network, which has no shortcut."""
    changes, option = stride != 1 or channels != planes, kind.shortcut
    if option is None:
        return _Absent()
    if changes and kind.layout.avg_down:
        # As in timm: odd sides are rounded up as a stride does, and a pixel beyond the edge is not counted.
        pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, nn.Conv2d(channels, planes, 1, bias=False), nn.BatchNorm2d(planes))
    if option == "C" or (option == "B" and changes):
        return nn.Sequential(nn.Conv2d(channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
    return PadShortcut(channels, planes, stride) if changes else None


class _Absent(nn.Module):
    """Marks a block of a plain network."""


def _joined(residual: torch.Tensor, x: torch.Tensor, shortcut: nn.Module | None, relu: nn.Module) -> torch.Tensor:
    """ReLU(residual + shortcut(x)), or ReLU(residual) without a shortcut."""
    if not isinstance(shortcut, _Absent):
        residual = residual + (x if shortcut is None else shortcut(x))
    out: torch.Tensor = relu(residual)
    return out


def _initialise(network: nn.Module) -> None:
    """He et al.'s initialisation for ReLU networks (arXiv:1502.01852), by fan-out as in torchvision."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
