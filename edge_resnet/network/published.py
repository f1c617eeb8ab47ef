"""What weights say about themselves: preprocessing, classes, and which network they are of. Knows no files and no network access.

Read from torchvision's weights, and from the ``config.json`` of timm and of Hugging Face's transformers. What contradicts the
weights, or would change what they compute, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from types import MappingProxyType
from typing import Any, TypeAlias, cast, get_args

from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.records import Interpolation, ModelSpec, Preprocess

__all__ = ["TORCHVISIONS", "Published", "published_config", "torchvision_published", "torchvision_weights"]

Json: TypeAlias = Mapping[str, Any]

#: ``--weights`` → torchvision's id.
TORCHVISIONS: Mapping[str, str] = MappingProxyType({"default": "IMAGENET1K_V1", "v1": "IMAGENET1K_V1", "v2": "IMAGENET1K_V2"})
#: PIL's numbers of its filters, which transformers writes.
_PILLOWS = {2: "bilinear", 3: "bicubic", 0: "nearest", 1: "lanczos", 4: "box", 5: "hamming"}
_OWN = "--resize, --interpolation, --mean and --std say how images are prepared"
#: timm's arguments that neither change what the weights compute nor are read from elsewhere.
_HARMLESS = frozenset({"in_chans", "num_classes", "drop_rate", "drop_path_rate", "drop_block_rate", "pretrained", "global_pool"})
#: Origins that timm puts before a network's name.
_ORIGIN = re.compile(r"^(tv|gluon|ssl|swsl|ig|legacy|cspresnet)_")


@dataclass(frozen=True)
class Published:
    """How images were prepared for some weights, and what their classes are called.

    ``origin``: where that is written, for people. ``preprocess``: None where nothing is said. ``crop_pct``: share of the short
    side that is cropped, from which other sizes follow; 0 where only sizes are given. ``labels``: None without names.
    ``remarks``: what a reader should know.
    """

    origin: str
    preprocess: Preprocess | None = None
    crop_pct: float = 0.0
    labels: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()

    def resize(self, input_size: int) -> int:
        """The short side in pixels for a crop of ``input_size`` pixels, by timm's rule where a share is known."""
        assert self.preprocess is not None
        if self.crop_pct:
            return floor(input_size / self.crop_pct)
        return round(input_size * self.preprocess.resize / self.preprocess.crop)


def torchvision_weights(spec: ModelSpec, version: str) -> Any:
    """torchvision's entry for these weights, with ``url``, ``transforms`` and ``meta``. ``version``: a key of TORCHVISIONS.

    Raises WeightsError where it has none.
    """
    from torchvision.models import get_model_weights

    try:
        entries = get_model_weights(spec.name) if spec.family == "imagenet" and spec.shortcut == "B" else None
    except ValueError:
        entries = None
    if entries is None or spec.classes != 1000:
        raise WeightsError(
            f"there are no default weights for {spec.name} with shortcut {spec.shortcut} and {spec.classes} classes",
            hint="edge-resnet build --weights random starts from scratch; edge-resnet build --weights PATH takes a file",
        )
    name = TORCHVISIONS[version]
    if name not in entries.__members__:
        others = " and ".join(key for key in ("v1", "v2") if TORCHVISIONS[key] in entries.__members__)
        raise WeightsError(f"torchvision has no {name} weights of {spec.name}", hint=f"edge-resnet build --weights {others}")
    return entries[name]


def torchvision_published(spec: ModelSpec, version: str) -> Published:
    """What torchvision says of its weights. Raises WeightsError where it has none."""
    transforms = torchvision_weights(spec, version).transforms()
    preprocess = Preprocess(
        transforms.resize_size[0],
        transforms.crop_size[0],
        transforms.interpolation.value,
        tuple(transforms.mean),
        tuple(transforms.std),
    )
    return Published(f"torchvision's {TORCHVISIONS[version]}", preprocess)


def published_config(config: Json, preprocessor: Json, spec: ModelSpec, *, grey: bool = False) -> Published:
    """What the configuration files of a repository say of weights that are of ``spec``.

    ``config``: config.json; ``preprocessor``: preprocessor_config.json of transformers; empty where there is none. ``grey``:
    whether the weights take one channel. Raises WeightsError where they contradict the weights, name a network that computes
    something else with them, or ask for preprocessing that this package does not have.
    """
    try:
        if "pretrained_cfg" in config or "architecture" in config:
            _check_timm(config, spec, channels=1 if grey else 3)
            return _timms(config)
        if config.get("model_type") == "resnet" or "ResNetForImageClassification" in config.get("architectures", ()):
            _check_transformers(config, spec, channels=1 if grey else 3)
            return _transformers(config, preprocessor)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = error.message if isinstance(error, ConfigError) else "a value has another type or is missing"
        raise WeightsError(f"config.json cannot be used: {reason}", hint=f"use the weights as a FILE; {_OWN}") from error
    if config.get("model_type"):
        raise WeightsError(
            f"config.json says {config['model_type']!r}, not a ResNet", hint="edge-resnet models lists what can be built"
        )
    return Published("", remarks=("the repository says nothing about preprocessing: the family's is taken",))


def _check_timm(config: Json, spec: ModelSpec, *, channels: int) -> None:
    architecture, details = str(config.get("architecture", "")), _details(config)
    name = _ORIGIN.sub("", architecture)
    if name and name != spec.name:
        raise WeightsError(
            f"config.json says {architecture}, the weights are of {spec.name}, which may compute something else",
            hint="edge-resnet models lists what can be built; use the weights as a FILE if they are what you want",
        )
    _agree("classes", config.get("num_classes", details.get("num_classes")), spec.classes)
    _agree("channels of the input", details["input_size"][0] if "input_size" in details else None, channels)
    unknown = sorted(set(config.get("model_args") or {}) - _HARMLESS)
    if unknown:
        raise WeightsError(
            f"config.json changes the network by {', '.join(unknown)}, which the weights do not show",
            hint="edge-resnet models lists what can be built",
        )


def _timms(config: Json) -> Published:
    details = _details(config)
    remarks = []
    if details.get("crop_mode", "center") != "center" and details.get("crop_pct", 0.875) < 1:
        raise WeightsError(f"config.json asks for the crop mode {details['crop_mode']}, which does not exist here", hint=_OWN)
    side = _square(details.get("input_size", (3, 224, 224))[1:])
    share = float(details.get("crop_pct", 0.875))
    preprocess = Preprocess(
        floor(side / share),
        side,
        _known(details.get("interpolation", "bicubic")),
        _three(details["mean"]),
        _three(details["std"]),
    )
    if (tested := details.get("test_input_size")) and list(tested) != list(details.get("input_size", ())):
        size, test_share = _square(tested[1:]), float(details.get("test_crop_pct", share))
        resize = floor(size / test_share)
        remarks.append(f"timm also publishes accuracy at {size} pixels: --input-size {size} --resize {resize}")
    return Published("config.json (timm)", preprocess, share, _timms_labels(config), tuple(remarks))


def _details(config: Json) -> Json:
    """timm's pretrained_cfg, which older repositories write at the top."""
    found: Json = config.get("pretrained_cfg") or config
    return found


def _timms_labels(config: Json) -> tuple[str, ...] | None:
    names = config.get("label_names") or _details(config).get("label_names")
    texts: Json = config.get("label_descriptions") or _details(config).get("label_descriptions") or {}
    return tuple(_one_line(texts.get(name, name)) for name in names) if names else None


def _check_transformers(config: Json, spec: ModelSpec, *, channels: int) -> None:
    labels = config.get("id2label")
    _agree("classes", len(labels) if labels else config.get("num_labels"), spec.classes)
    _agree("channels of the input", config.get("num_channels"), channels)
    if (depths := config.get("depths")) is not None:
        _agree("layers", sum(depths) * (2 if config.get("layer_type") == "basic" else 3) + 2, spec.depth)
    if config.get("hidden_act", "relu") != "relu":
        raise WeightsError(f"config.json says {config['hidden_act']}, only ReLU can be built", hint="use another network")
    for key in ("downsample_in_bottleneck", "downsample_in_first_stage"):
        if config.get(key):
            raise WeightsError(
                f"config.json says {key}, whose strides stand elsewhere than torchvision's", hint="use another network"
            )


def _transformers(config: Json, preprocessor: Json) -> Published:
    labels = config.get("id2label") or {}
    names = tuple(_one_line(labels[str(index)]) for index in range(len(labels))) if labels else None
    if names and all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        names = None
    if not preprocessor:
        remark = "the repository says nothing about preprocessing: the family's is taken"
        return Published("config.json (transformers)", labels=names, remarks=(remark,))
    origin = "preprocessor_config.json (transformers)"
    mean, std = _three(preprocessor["image_mean"]), _three(preprocessor["image_std"])
    method = _known(_PILLOWS.get(preprocessor.get("resample", 3), "unknown"))
    size, kind = preprocessor["size"], str(preprocessor.get("image_processor_type") or preprocessor.get("feature_extractor_type"))
    if kind.startswith("ConvNext"):
        side = int(size["shortest_edge"] if isinstance(size, Mapping) else size)
        if side >= 384:
            raise WeightsError(f"{origin} warps images to {side} pixels, which does not exist here", hint=_OWN)
        share = float(preprocessor.get("crop_pct") or 224 / 256)
        return Published(origin, Preprocess(floor(side / share), side, method, mean, std), share, names)
    edge, crop = size.get("shortest_edge") if isinstance(size, Mapping) else size, preprocessor.get("crop_size")
    if not preprocessor.get("do_center_crop") or not edge or crop is None:
        raise WeightsError(f"{origin} warps images to a square, which does not exist here", hint=_OWN)
    side = _square((crop["height"], crop["width"]) if isinstance(crop, Mapping) else (crop, crop))
    return Published(origin, Preprocess(int(edge), side, method, mean, std), labels=names)


def _agree(what: str, said: object, found: int) -> None:
    if said is not None and said != found:
        raise WeightsError(f"config.json says {said} {what}, the weights have {found}", hint="the repository contradicts itself")


def _known(name: str) -> Interpolation:
    if name in get_args(Interpolation):
        return cast("Interpolation", name)
    raise WeightsError(
        f"images are resized by {name}, which does not exist here", hint="edge-resnet build --interpolation bicubic"
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    """Per channel, RGB; one value of a network that takes one channel counts for all."""
    numbers = [float(value) for value in values]
    first, second, third = numbers * 3 if len(numbers) == 1 else numbers
    return first, second, third


def _square(sides: Sequence[int]) -> int:
    height, width = sides
    if height != width:
        raise WeightsError(f"config.json says {height}x{width} pixels, only squares are cropped here", hint=_OWN)
    return int(height)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
