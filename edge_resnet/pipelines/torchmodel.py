"""A torch module that is handed in: which network it is, its weights as a file, or all of it as ONNX. Knows no artifact."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from edge_resnet.artifact.graphcheck import OPSET
from edge_resnet.core.errors import ExportError, WeightsError
from edge_resnet.core.records import ModelSpec
from edge_resnet.network import build_network
from edge_resnet.network.weights import fill_network, spec_of
from edge_resnet.runtime.agreement import TOLERANCE
from edge_resnet.runtime.onnxruntime import open_session

__all__ = ["exported_module", "is_resnet", "module_weights", "spec_of"]

_HINT = "export it to ONNX, and build that file: then it is no ResNet of a known shape, but what it computes"
_log = logging.getLogger(__name__)


def is_resnet(module: nn.Module) -> bool:
    """Whether the names and shapes of its parameters are those of a network that edge-resnet builds itself."""
    try:
        spec_of(module)
    except WeightsError:
        return False
    return True


@contextmanager
def exported_module(module: nn.Module, input_size: int) -> Iterator[Path]:
    """The ONNX file of any classifier of images (N, 3, input_size, input_size), which exists while the block runs.

    It is exported in evaluation mode, which is said where it was in another, and left as it was. Raises WeightsError for hooks,
    types other than float32, a module that fails or returns anything but (N, classes), and where torch cannot export it;
    ExportError where the file computes something else.
    """
    inner = module.module if isinstance(module, nn.DataParallel) else module
    name = type(inner).__name__
    _check_module(inner, name)
    if any(part.training for part in inner.modules()):
        _log.warning("%s is in training mode: it is exported in evaluation mode", name)
    device = next((parameter.device for parameter in inner.parameters()), torch.device("cpu"))
    example = torch.rand(2, 3, input_size, input_size, generator=torch.Generator().manual_seed(0)).to(device)
    with tempfile.TemporaryDirectory() as folder, _evaluating(inner), torch.no_grad():
        try:
            expected = inner(example)
        except Exception as error:  # a stranger's forward may raise anything
            hint = f"it must take images (N, 3, {input_size}, {input_size}); input_size says another side"
            raise WeightsError(f"{name} fails on images of {input_size} pixels: {error}", hint=hint) from error
        if not isinstance(expected, torch.Tensor):
            hint = "wrap it in a module that returns the logits alone"
            raise WeightsError(f"{name} returns a {type(expected).__name__}, not one tensor", hint=hint)
        path = Path(folder) / f"{name.lower()}.onnx"
        _export_module(inner, example[:1], path, name)
        found = open_session(path).run(None, {"images": example.cpu().numpy()})[0]
        tolerance = TOLERANCE * max(1.0, float(expected.abs().max()))
        if found.shape != tuple(expected.shape) or not float(np.abs(found - expected.cpu().numpy()).max()) <= tolerance:
            hint = "export it to ONNX in another way, and build that file"
            raise ExportError(f"the ONNX file that torch writes of {name} computes something else than {name}", hint=hint)
        yield path


def _check_module(module: nn.Module, name: str) -> None:
    for place, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks:
            hint = "call remove() on the handles that registered them; torch.nn.utils.remove_weight_norm undoes a weight norm"
            raise WeightsError(f"{name} has hooks at {place or 'its top'}, whose effect no file can hold", hint=hint)
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for key, tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise WeightsError(f"{name} computes in {tensor.dtype} ({key}), not in torch.float32", hint="hand in model.float()")
    if not tensors:
        raise WeightsError(f"{name} has no weights", hint="hand in a trained classifier of images")


def _export_module(module: nn.Module, example: torch.Tensor, path: Path, name: str) -> None:
    """Write the module with the TorchScript exporter, as ``network.export`` does, and for its reasons."""
    axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (example,), str(path), dynamo=False, opset_version=OPSET, input_names=["images"], output_names=["logits"],
                dynamic_axes=axes,
            )  # fmt: skip
    except Exception as error:  # the exporter raises what its C++ and the stranger's forward raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        hint = "export it yourself, and build that file with edge-resnet build --onnx"
        raise WeightsError(f"torch cannot export {name}: {reason}", hint=hint) from error


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
