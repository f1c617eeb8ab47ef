"""A torch module that is handed in: recognised, compared with what its parameters say it is, and left as it was."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import ResNet as TorchvisionResNet
from torchvision.models import resnet18
from torchvision.models.resnet import Bottleneck

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.records import ModelSpec
from edge_resnet.network import build_network
from edge_resnet.pipelines.torchmodel import module_weights, spec_of


def _weights(module: nn.Module) -> AbstractContextManager[Path]:
    spec = spec_of(module)
    return module_weights(module, replace(spec, input_size=min(spec.input_size, 64)))


CIFAR = ModelSpec(family="cifar", depth=8, shortcut="A", classes=10, input_size=32)


@pytest.fixture
def small() -> nn.Module:
    """The smallest network of the CIFAR family, seeded."""
    torch.manual_seed(0)
    return build_network(CIFAR)


def test_torchvisions_resnet_is_recognised() -> None:
    """Depth, shortcut and classes are read from the parameters."""
    assert spec_of(resnet18(num_classes=5)) == ModelSpec("imagenet", 18, "B", classes=5, input_size=224)


def test_the_file_holds_the_weights_and_goes(small: nn.Module) -> None:
    """Value for value, while the block runs."""
    with _weights(small) as path:
        found = load_file(path)
        assert found.keys() == small.state_dict().keys()
        assert all(torch.equal(found[key], value) for key, value in small.state_dict().items())
    assert not Path(path).parent.exists()


def test_wrappers_are_looked_through(small: nn.Module) -> None:
    """DataParallel puts a prefix before every name."""
    with _weights(nn.DataParallel(small)) as path:
        assert path.is_file()


def test_the_module_is_left_as_it_was(small: nn.Module) -> None:
    """The mode of every part, gradients and the running statistics: a fine-tuning may go on with it."""
    small.train()
    frozen = [part for part in small.modules() if isinstance(part, nn.BatchNorm2d)][:2]
    for part in frozen:
        part.eval()
    modes = [part.training for part in small.modules()]
    before = {key: value.clone() for key, value in small.state_dict().items()}
    with _weights(small):
        pass
    assert [part.training for part in small.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in small.state_dict().items())
    assert all(parameter.requires_grad for parameter in small.parameters())


class _Doubled(nn.Module):
    """The parameters of a network by their own names, and twice its logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        for name, child in inner.named_children():
            self.add_module(name, child)
        self._run = inner.forward

    def forward(self, images: torch.Tensor) -> object:
        return 2 * self._run(images)


class _Tuple(_Doubled):
    def forward(self, images: torch.Tensor) -> object:
        return self._run(images), images


class _Narrow(_Doubled):
    def forward(self, images: torch.Tensor) -> object:
        return self._run(images)[:, :3]


class _Failing(_Doubled):
    def forward(self, images: torch.Tensor) -> object:
        raise RuntimeError("it wants something else")


@pytest.mark.parametrize("kind", [_Doubled, _Tuple, _Narrow])
def test_another_computation_is_refused(small: nn.Module, kind: type[_Doubled]) -> None:
    """Its weights alone would be another network."""
    with pytest.raises(WeightsError, match=f"{kind.__name__} has the parameters .* computes something else") as error:
        _weights(kind(small)).__enter__()
    assert error.value.hint


def test_a_forward_that_fails_is_refused(small: nn.Module) -> None:
    """With what it said."""
    with pytest.raises(WeightsError, match="it wants something else") as error:
        _weights(_Failing(small)).__enter__()
    assert error.value.hint


def test_an_activation_that_was_replaced_is_noticed() -> None:
    """It has no parameters, so the state dict does not show it."""
    torch.manual_seed(0)
    network = resnet18(num_classes=5)
    network.relu = nn.SiLU()
    with pytest.raises(WeightsError, match="computes something else"):
        _weights(network).__enter__()


@pytest.mark.parametrize(
    "module", [nn.Linear(3, 2), nn.Sequential(), nn.Conv2d(3, 8, 3)], ids=lambda module: type(module).__name__
)
def test_what_is_no_resnet_is_refused(module: nn.Module) -> None:
    """Named, with where the list is."""
    with pytest.raises(WeightsError, match=f"{type(module).__name__} is not one of the networks") as error:
        _weights(module).__enter__()
    assert error.value.hint


def test_a_relative_of_resnet_is_refused() -> None:
    """ResNet-26 has ResNet-50's names and fewer blocks."""
    with torch.device("meta"):
        network = TorchvisionResNet(Bottleneck, [2, 2, 2, 2])
    with pytest.raises(WeightsError, match="ResNet is not one of the networks"):
        _weights(network).__enter__()


def test_half_precision_is_refused_with_the_remedy(small: nn.Module) -> None:
    """The artifact's graph is FP32."""
    with pytest.raises(WeightsError, match=r"torch\.bfloat16") as error:
        _weights(small.bfloat16()).__enter__()
    assert ".float()" in error.value.hint


def test_weights_that_are_not_finite_are_refused(small: nn.Module) -> None:
    """A training that diverged."""
    with torch.no_grad():
        next(small.parameters())[0] = float("nan")
    with pytest.raises(WeightsError, match="not finite") as error:
        _weights(small).__enter__()
    assert error.value.hint
