"""A network of another maker: an ONNX file, or a torch module that is exported to one, wrapped for an artifact.

Both go one way. Nothing about the images is guessed but the resize, which is said. Loads torch and onnx.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edge_resnet.artifact.schema import ForeignSpec, WeightsOrigin
from edge_resnet.compiler.foreign import Wrapped, image_input, input_size, read_onnx, wrap
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import FAMILIES, Preprocess
from edge_resnet.pipelines.request import PreprocessChoice, Request
from edge_resnet.pipelines.torchmodel import exported_module

__all__ = ["ForeignNetwork", "open_foreign"]

_log = logging.getLogger(__name__)

#: Images of fewer pixels are not cropped, as those of CIFAR.
_SMALL = 64


@dataclass(frozen=True, eq=False)
class ForeignNetwork:
    """A wrapped network, not yet verified, with what the manifest says of it."""

    spec: ForeignSpec
    wrapped: Wrapped
    origin: WeightsOrigin


def open_foreign(request: Request) -> ForeignNetwork:
    """Read and wrap the request's ONNX file or module.

    Raises ConfigError where nobody says how its images are normalised or how large they are, and for options of other networks;
    WeightsError for a network that cannot be wrapped.
    """
    named = (request.name, request.family, request.depth, request.shortcut)
    if request.weights != "default" or request.plain or any(value is not None for value in named):
        hint = "leave weights, family, depth, shortcut and plain out"
        raise ConfigError("a network of your own has its own weights and shape", hint=hint)
    if request.module is None:
        assert request.onnx is not None, "a foreign network is a file or a module"
        return _of_file(request, request.onnx, request.onnx.stem, WeightsOrigin(request.onnx.name))
    if request.onnx is not None:
        raise ConfigError("a build has one network, not a model and an ONNX file", hint="leave one of them out")
    if request.images.input_size is None:
        raise ConfigError("a torch module does not say how large its images are", hint="input_size=224 says it, in pixels")
    _check_normalisation(request.images, type(request.module).__name__)  # before the export, which takes longer
    name = type(_unwrapped(request.module)).__name__
    with exported_module(request.module, request.images.input_size) as path:
        return _of_file(request, path, name.lower(), WeightsOrigin(f"a torch module, {name}"))


def _of_file(request: Request, path: Path, name: str, origin: WeightsOrigin) -> ForeignNetwork:
    where = str(path) if request.module is None else name
    model = read_onnx(path)
    size = input_size(image_input(model, where), request.images.input_size, where)
    preprocess, told = _preprocess(request.images, size, where)
    wrapped = wrap(model, preprocess, where)
    if request.classes not in (None, wrapped.classes):
        hint = "leave the number of classes out"
        raise ConfigError(f"{where} has {wrapped.classes} classes, not {request.classes}", hint=hint)
    for change in wrapped.changes:
        _log.info("%s: %s", where, change)
    if wrapped.preprocess != preprocess:
        told = f"the graph's own normalisation; {told}"
    digest = sha256_of(path)
    spec = ForeignSpec(_tidy(name), wrapped.classes, size, f"sha256:{digest}", wrapped.changes)
    return ForeignNetwork(spec, wrapped, replace(origin, sha256=digest, preprocessing=told))


def _check_normalisation(choice: PreprocessChoice, where: str) -> None:
    if choice.mean is None or choice.std is None:
        raise ConfigError(
            f"nothing says how the images of {where} are normalised",
            hint="edge-resnet build --normalise imagenet (mean and std), unit (0 to 1) or none (0 to 255), or its mean and std",
        )


def _preprocess(choice: PreprocessChoice, size: int, where: str) -> tuple[Preprocess, str]:
    """The preprocessing, and a text that says who chose what."""
    _check_normalisation(choice, where)
    assert choice.mean is not None and choice.std is not None  # noqa: PT018 - just checked
    usual = FAMILIES["imagenet"].resize(size) if size >= _SMALL else size
    asked = ["mean, std", *(name for name in ("resize", "interpolation") if getattr(choice, name) is not None)]
    preprocess = Preprocess(
        choice.resize if choice.resize is not None else max(usual, size), size, choice.interpolation or "bilinear",
        choice.mean, choice.std,
    )  # fmt: skip
    rest = "" if len(asked) == 3 else ", the rest is edge-resnet's default"
    return preprocess, f"{', '.join(asked)} as asked for{rest}"


def _unwrapped(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, nn.DataParallel) else module


def _tidy(name: str) -> str:
    """A name that folders and listings can hold."""
    tidy = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:60].strip("-._")
    return tidy or "network"
