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


@contextmanager
def module_weights(module: nn.Module) -> Iterator[Path]:
    """A file of the module's weights, there while the block runs.

    Raises WeightsError where the module is none of the networks that can be built, or has the parameters of one and computes
    something else: then its weights alone are not what it does.
    """
    _check_computation(module, spec_of(module))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}, path)
        yield path


def _check_computation(module: nn.Module, spec: ModelSpec) -> None:
    """Compare the module with the network of that specification on two seeded inputs; its mode is left as it was."""
    ours = fill_network(build_network(spec), module).eval()
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            images = torch.randn(2, 3, spec.input_size, spec.input_size, generator=torch.Generator().manual_seed(0))
            device = next(module.parameters()).device
            given, own = module(images.to(device)).float().cpu(), ours(images)
    finally:
        module.train(was_training)
    if given.shape != own.shape or not torch.allclose(given, own, rtol=1e-3, atol=1e-3 * float(own.abs().max())):
        raise WeightsError(
            f"{type(module).__name__} has the parameters of {spec.name} but computes something else",
            hint="only the networks that edge-resnet models lists can be built",
        )
