"""A torch module that is handed in: which network it is, and its weights as a file. Knows no artifact; loads torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.records import ModelSpec
from edge_resnet.network import build_network
from edge_resnet.network.weights import fill_network, spec_of

__all__ = ["module_weights", "spec_of"]

_HINT = "only the networks that edge-resnet models lists can be built"


@contextmanager
def module_weights(module: nn.Module, spec: ModelSpec) -> Iterator[Path]:
    """A file of the module's weights, which exists while the block runs.

    ``spec``: what ``spec_of`` returns for it, with any input size. Raises WeightsError where the module is not float32, or has
    the parameters of that network and computes something else: then its weights alone do not describe it.
    """
    _check_computation(module, spec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}, path)
        yield path


def _check_computation(module: nn.Module, spec: ModelSpec) -> None:
    """Compare the module with the network of ``spec`` on two seeded inputs; the mode of each of its parts stays."""
    parameter, name = next(module.parameters()), type(module).__name__
    if parameter.dtype != torch.float32:
        raise WeightsError(f"{name} computes in {parameter.dtype}, not in torch.float32", hint="hand in model.float()")
    ours = fill_network(build_network(spec), module).eval()
    images = torch.randn(2, 3, spec.input_size, spec.input_size, generator=torch.Generator().manual_seed(0))
    with _evaluating(module), torch.no_grad():
        expected = ours(images)
        try:
            found = module(images.to(parameter.device))
        except Exception as error:  # a stranger's forward may raise anything
            raise WeightsError(f"{name} has the parameters of {spec.name} and fails on images: {error}", hint=_HINT) from error
    tolerance = 1e-3 * float(expected.abs().max())
    alike = isinstance(found, torch.Tensor) and found.shape == expected.shape
    if not alike or not torch.allclose(found.cpu(), expected, rtol=1e-3, atol=tolerance):
        raise WeightsError(f"{name} has the parameters of {spec.name} but computes something else", hint=_HINT)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode while the block runs. Parts may differ in their mode: fine-tuning often freezes batch norms."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
