"""Small seeded classifiers that are no ResNets, and their ONNX files. Does not know about fixtures."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

#: Side of the images, and number of classes, of every network here.
SIZE, CLASSES = 16, 5


class Plain(nn.Sequential):
    """Like VGG: maps are flattened into three linear layers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES),
        )  # fmt: skip


class Joined(nn.Module):
    """Like Inception and SqueezeNet: convolutions and two kinds of pool joined, and a convolution as the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.small, self.large = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=2, dilation=2)
        self.average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.largest = nn.MaxPool2d(3, stride=1, padding=1)
        self.head = nn.Conv2d(24, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(images)
        x = torch.cat([torch.relu(self.small(x)), torch.relu(self.large(x)), self.average(x), self.largest(x)], 1)
        return self.head(x).mean((2, 3))


class Dense(nn.Module):
    """Like DenseNet: batch norms in front of the convolutions, maps joined, an average pool between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * index) for index in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * index, 4, 3, padding=1, bias=False) for index in range(2))
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(images)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(torch.relu(norm(x)))], 1)
        x = self.pool(torch.relu(self.norms[2](x)))
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        return self.fc(x.view(x.size(0), -1))


class Residual(nn.Module):
    """A residual block before its batch norm and ReLU, so that the Adds read each other, and a sum that no convolution makes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.conv = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(images)
        x = x + self.conv(torch.relu(self.norm(x)))
        x = nn.functional.max_pool2d(x, 2) + nn.functional.avg_pool2d(x, 2)
        return self.fc(torch.relu(x).mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"plain": Plain, "joined": Joined, "dense": Dense, "residual": Residual}


def network(name: str) -> nn.Module:
    """The network of that name with batch norms as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = NETWORKS[name]()
        for part in made.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.2)
                nn.init.normal_(part.running_mean, 0, 0.2)
                nn.init.uniform_(part.running_var, 0.5, 2.0)
    return made.eval()


@functools.cache
def onnx_of(name: str, opset: int = 17, *, fixed: bool = False, newer: bool = False) -> bytes:
    """Its ONNX file by the TorchScript exporter, or by the newer one. ``fixed``: for one image."""
    return exported(network(name), opset, fixed=fixed, newer=newer)


def exported(module: nn.Module, opset: int = 17, *, fixed: bool = False, newer: bool = False) -> bytes:
    """The ONNX file of a module for images of SIZE pixels."""
    file, example = io.BytesIO(), torch.zeros(1 if fixed or not newer else 2, 3, SIZE, SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if newer:
            shapes = None if fixed else ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(module, (example,), opset_version=opset, dynamo=True, dynamic_shapes=shapes)
            assert program is not None
            return program.model_proto.SerializeToString()
        axes = None if fixed else {"image": {0: "batch"}, "scores": {0: "batch"}}
        torch.onnx.export(
            module, (example,), file, dynamo=False, opset_version=opset, input_names=["image"], output_names=["scores"],
            dynamic_axes=axes,
        )  # fmt: skip
    return file.getvalue()


def graph_of(
    nodes: list[onnx.NodeProto], output: str, constants: dict[str, object] | None = None, **how: object
) -> onnx.ModelProto:
    """A model of ``nodes`` that read ``image``. ``how``: ``shape`` of the image, ``kind`` of its elements, and ``opset``."""
    shape = how.get("shape", ["batch", 3, SIZE, SIZE])
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("image", how.get("kind", TensorProto.FLOAT), shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", how.get("opset", 17))], ir_version=8)
