"""Which network, weights and preprocessing a build gets: what the user asks for, else what the weights say, else the family's.

Knows no flags. Loads torch, and huggingface_hub for weights of the Hub.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from edge_resnet.artifact.card import described_steps
from edge_resnet.artifact.schema import ForeignSpec, WeightsOrigin, nearest_family
from edge_resnet.compiler.foreign import Wrapped
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.modelnames import spec_named
from edge_resnet.core.records import (
    FAMILIES,
    ModelSpec,
    Preprocess,
    Progress,
    default_preprocess,
    default_spec,
)
from edge_resnet.network.pretrained import shipped_checkpoint
from edge_resnet.network.published import TORCHVISIONS, Published, published_config, torchvision_published
from edge_resnet.network.weightfile import stated_preprocess
from edge_resnet.network.weights import default_address, file_and_name, spec_in_file
from edge_resnet.pipelines.foreign import open_foreign
from edge_resnet.pipelines.request import PreprocessChoice, Request
from edge_resnet.pipelines.torchmodel import is_resnet, spec_of

__all__ = ["PreprocessChoice", "Request", "Selection", "select", "tell_preprocessing"]

_log = logging.getLogger(__name__)

#: The network of ``default``, ``v1`` and ``random`` where none is named.
_USUAL_DEPTH = 50
_FAMILYS = "the family's"


@dataclass(frozen=True)
class Selection:
    """``weights``: as ``load_weights`` takes them; a file of the Hub is in the cache. ``labels``: as the weights say, or None.

    ``foreign``: the network of another maker that ``model`` describes, or None.
    """

    model: ModelSpec | ForeignSpec
    preprocess: Preprocess
    weights: str
    origin: WeightsOrigin
    labels: tuple[str, ...] | None = None
    foreign: Wrapped | None = None


@dataclass(frozen=True)
class _Found:
    """What the weights are, before the user's choices of preprocessing. ``grey``: they take one channel."""

    model: ModelSpec
    weights: str
    origin: WeightsOrigin
    published: Published
    grey: bool = False


def select(request: Request, *, progress: Progress | None = None) -> Selection:
    """Choose network, weights and preprocessing. Weights of the Hub are downloaded; what was passed over is logged.

    Raises ConfigError for choices that exclude each other, and for weights of one channel whose normalisation nobody says;
    WeightsError where weights cannot be had, or contradict themselves; for a foreign network what ``open_foreign`` raises.
    """
    if request.onnx is not None or (request.module is not None and not is_resnet(request.module)):
        own = open_foreign(request)
        return Selection(own.spec, own.wrapped.preprocess, own.spec.weights, own.origin, foreign=own.wrapped)
    found = _found(request, progress)
    for remark in found.published.remarks:
        _log.warning("weights %s: %s", request.weights, remark)
    if found.grey:
        _check_grey(request.images, found.published)
    preprocess, told = _preprocess(found.model, found.published, request.images)
    model = replace(found.model, input_size=preprocess.crop)
    return Selection(model, preprocess, found.weights, replace(found.origin, preprocessing=told), found.published.labels)


def tell_preprocessing(chosen: Selection) -> None:
    """Log preprocessing that is not the family's, for who prints no artifact's."""
    family = nearest_family(chosen.model)
    if chosen.preprocess != default_preprocess(family, chosen.preprocess.crop):
        _log.warning("images are prepared so: %s", described_steps(chosen.preprocess, chosen.origin.preprocessing))


def _found(request: Request, progress: Progress | None) -> _Found:
    if request.module is not None:
        if request.weights != "default" or _names_a_network(request) or request.classes is not None:
            raise ConfigError("a model has its own weights and shape", hint="leave weights, shortcut, plain and classes out")
        return _Found(spec_of(request.module), request.weights, WeightsOrigin("a torch module"), Published(""))
    if request.weights == "random":
        return _Found(_asked(request), "random", WeightsOrigin("random"), Published(""))
    if request.weights in TORCHVISIONS:
        model = _asked(request)
        if request.weights == "default" and shipped_checkpoint(model) is not None:
            return _Found(model, "default", WeightsOrigin("shipped with edge-resnet"), Published(""))
        published = torchvision_published(model, request.weights)
        return _Found(model, request.weights, WeightsOrigin(default_address(model, request.weights)[0]), published)
    if request.weights.startswith("hf://"):
        return _from_hub(request, progress)
    path, _ = file_and_name(request.weights)
    model, grey = _of_file(request, request.weights)
    published = Published("the training that wrote the file", stated_preprocess(path))
    return _Found(model, request.weights, WeightsOrigin(path.name, sha256=sha256_of(path)), published, grey)


def _from_hub(request: Request, progress: Progress | None) -> _Found:
    from edge_resnet.network.hub import fetch

    file = fetch(request.weights, progress=progress)
    weights = f"{file.path}#{file.name}" if file.name else str(file.path)
    model, grey = _of_file(request, weights)
    origin = WeightsOrigin(f"hf://{file.repository}/{file.file}", file.revision, sha256_of(Path(file.path)), license=file.license)
    published = published_config(file.config, file.preprocessor, model, grey=grey)
    return _Found(model, weights, origin, published, grey)


def _of_file(request: Request, weights: str) -> tuple[ModelSpec, bool]:
    """The network in a file, or the one asked for, which ``load_weights`` compares with it; whether it takes one channel."""
    found, grey = spec_in_file(weights)
    if request.name is not None or request.depth is not None:
        return _asked(request), grey
    if request.family not in (None, found.family):
        fault = f"weights {weights} are of {found.name}, not of the family {request.family}"
        raise ConfigError(fault, hint=f"leave --family out, or use --family {found.family}")
    model = replace(found, plain=request.plain, classes=request.classes or found.classes)
    return replace(model, shortcut=request.shortcut or found.shortcut), grey


def _asked(request: Request) -> ModelSpec:
    """The network that the user names, with the usual values for the rest."""
    width = (request.labels or None) if request.classes is None else request.classes
    if request.name is not None:
        if request.family is not None or request.depth is not None or request.plain:
            raise ConfigError("a network's name says its family, depth and kind", hint="use the name alone")
        spec = spec_named(request.name)
        return replace(spec, shortcut=request.shortcut or spec.shortcut, classes=width or spec.classes)
    depth = _USUAL_DEPTH if request.depth is None else request.depth
    return default_spec(request.family or "imagenet", depth, shortcut=request.shortcut, plain=request.plain, classes=width)


def _names_a_network(request: Request) -> bool:
    return request.name is not None or request.shortcut is not None or request.plain


def _check_grey(choice: PreprocessChoice, published: Published) -> None:
    """Normalisation of one channel: nobody may guess it, and all three channels need the same."""
    said = published.preprocess
    mean = choice.mean or (None if said is None else said.mean)
    std = choice.std or (None if said is None else said.std)
    if mean is None or std is None:
        raise ConfigError(
            "the weights take one channel, and nothing says how it is normalised",
            hint="edge-resnet build --mean 0.1307 0.1307 0.1307 --std 0.3081 0.3081 0.3081 is MNIST's: each channel has the same",
        )
    if len(set(mean)) > 1 or len(set(std)) > 1:
        fault = f"the weights take one channel, which has one mean and one std, not {mean} and {std}"
        raise ConfigError(fault, hint="repeat one value for all three channels")


def _preprocess(model: ModelSpec, published: Published, choice: PreprocessChoice) -> tuple[Preprocess, str]:
    """The preprocessing, and a text that says who chose what."""
    usual, said = FAMILIES[model.family], published.preprocess
    size = choice.input_size if choice.input_size is not None else said.crop if said is not None else model.input_size
    resize = usual.resize(size) if said is None else published.resize(size)
    base = Preprocess(max(resize, size), size) if said is None else replace(said, crop=size, resize=max(resize, size))
    own = {name: value for name in ("resize", "interpolation", "mean", "std") if (value := getattr(choice, name)) is not None}
    told = published.origin if said is not None else _FAMILYS
    chosen = [*([] if choice.input_size is None else ["input_size"]), *own]
    return replace(base, **own), told + (f", {', '.join(chosen)} as asked for" if chosen else "")
