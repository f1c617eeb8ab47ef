"""The records that all wings share: frozen, and validated when created. Does not know about numpy, files or devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias, get_args

from edge_resnet.core.errors import ConfigError

__all__ = [
    "FAMILIES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NORMALISATIONS",
    "STEM_LETTERS",
    "BatchProfile",
    "CalibMethod",
    "Correction",
    "Family",
    "FamilyDefaults",
    "Interpolation",
    "Layout",
    "ModelSpec",
    "Normalisation",
    "Precision",
    "Preprocess",
    "Progress",
    "QuantRecipe",
    "Shortcut",
    "Typing",
    "default_preprocess",
    "default_spec",
]

#: ``small``: ImageNet's networks with a 3x3 stem without stride, for images of 32 or 64 pixels.
Family: TypeAlias = Literal["imagenet", "cifar", "small"]
Shortcut: TypeAlias = Literal["A", "B", "C"]
#: How pixels between pixels are computed when an image is resized; all are antialiased.
Interpolation: TypeAlias = Literal["bilinear", "bicubic"]
Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
#: How TensorRT learns a tensor's precision: ``weak``, from flags of the builder; ``strong``, from the types in the graph.
Typing: TypeAlias = Literal["weak", "strong"]
#: How a range is read off a histogram; ``auto`` asks for the one that agrees best with FP32 on images held out.
CalibMethod: TypeAlias = Literal["auto", "max", "percentile", "mse", "entropy"]
#: What is corrected after the ranges are measured: nothing, biases, or ranges, biases and rounding, learned without labels.
Correction: TypeAlias = Literal["none", "bias", "learned"]
#: Called as ``progress(stage, done, total)``, first with ``done == 0``; long work reports through nothing else.
Progress: TypeAlias = Callable[[str, int, int], None]

#: Channel statistics of ImageNet in [0, 1], RGB (torchvision's; most CIFAR repositories use them too).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: What a network's input expects: pixels normalised by ImageNet's statistics, divided by 255, or as they are, 0 to 255.
Normalisation: TypeAlias = Literal["imagenet", "unit", "none"]
#: Mean and std in [0, 1] of each; a pixel p becomes (p / 255 - mean) / std.
NORMALISATIONS: Mapping[Normalisation, tuple[tuple[float, float, float], tuple[float, float, float]]] = MappingProxyType(
    {
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "none": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    }
)
#: TensorRT's sizes are numbers of 32 bits.
_MAX_BATCH = 2**31 - 1


@dataclass(frozen=True)
class FamilyDefaults:
    """What a network of a family has unless the user chooses otherwise.

    ``depths``: the paper's, in ascending order. ``shortcut``: the option of the paper's networks. ``input_size``,
    ``min_input_size``: side of the square input in pixels; below the minimum the last stage receives an empty feature map.
    ``short_side``: of an image after the resize, in pixels per ``input_size`` pixels. ``recipe``: name of the INT8 recipe.
    """

    depths: tuple[int, ...]
    shortcut: Shortcut
    classes: int
    input_size: int
    min_input_size: int
    short_side: int
    recipe: str

    def resize(self, input_size: int) -> int:
        """The short side in pixels of an image from which a square of ``input_size`` pixels is cropped."""
        return round(input_size * self.short_side / self.input_size)


#: Depths and shortcuts: He et al. 2015, tables 1 and 4 (imagenet), section 4.2 and table 6 (cifar). An ImageNet crop
#: is 224 of 256 pixels (torchvision); CIFAR images are not cropped. ``small`` is what many CIFAR repositories train.
FAMILIES: Mapping[Family, FamilyDefaults] = MappingProxyType(
    {
        "imagenet": FamilyDefaults((18, 34, 50, 101, 152), "B", 1000, 224, 32, 256, "imagenet"),
        "cifar": FamilyDefaults((20, 32, 44, 56, 110, 1202), "A", 10, 32, 8, 32, "cifar10"),
        "small": FamilyDefaults((18, 34, 50, 101, 152), "B", 10, 32, 8, 32, "cifar10"),
    }
)


def _require(condition: bool, message: str, hint: str = "") -> None:
    if not condition:
        raise ConfigError(message, hint=hint)


#: Stem and averaging projections → timm's letter behind a network's depth.
STEM_LETTERS: Mapping[tuple[tuple[int, ...], bool], str] = MappingProxyType(
    {
        ((), False): "",
        ((), True): "-avgdown",
        ((32, 32, 64), False): "c",
        ((32, 32, 64), True): "d",
        ((24, 32, 64), True): "t",
        ((64, 64, 128), False): "s",
    }
)


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the network's input: antialiased resize, centre crop, normalisation in the graph.

    ``resize``: short side in pixels after the resize. ``crop``: side of the centred square, in pixels.
    ``mean``, ``std``: per channel, RGB, in [0, 1] (torchvision's convention).
    """

    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _require(1 <= self.crop <= 4096, f"crop must lie in 1..4096 pixels, not {self.crop}", "ImageNet networks take 224")
        _require(
            self.crop <= self.resize <= 8192,
            f"resize must lie in {self.crop}..8192 pixels, not {self.resize}",
            "the crop is cut from the resized image",
        )
        _require(
            self.interpolation in get_args(Interpolation),
            f"there is no interpolation {self.interpolation!r} here",
            f"choose one of {', '.join(get_args(Interpolation))}",
        )
        _require(all(0 <= m <= 1 for m in self.mean), f"mean must lie in [0, 1], not {self.mean}", "divide by 255")
        _require(all(0 < s <= 1 for s in self.std), f"std must lie in (0, 1], not {self.std}", "divide by 255")


@dataclass(frozen=True)
class Layout:
    """How a network differs from its namesake of He et al. 2015; by default it does not.

    ``groups``, ``width_per_group``: of a bottleneck's 3x3 convolution, as torchvision counts (Xie et al. 2017; Zagoruyko and
    Komodakis 2016). ``stem``: output channels of the three 3x3 convolutions that replace the 7x7, if they do;
    ``avg_down``: a projection averages 2x2 pixels where it would skip three of four (He et al. 2019, ResNet-C and D).
    ``pooled``: the max pool stays behind the 3x3 stem of the family ``small``.
    """

    groups: int = 1
    width_per_group: int = 64
    stem: tuple[int, ...] = ()
    avg_down: bool = False
    pooled: bool = False

    def __post_init__(self) -> None:
        _require(1 <= self.groups <= 1024, f"groups must lie in 1..1024, not {self.groups}", "a ResNeXt has 32 or 64")
        _require(
            1 <= self.width_per_group <= 1024,
            f"the width of a group must lie in 1..1024 channels, not {self.width_per_group}",
            "64, or 128 in a Wide ResNet, or 4 to 48 in a ResNeXt",
        )
        _require(
            len(self.stem) in (0, 3) and all(1 <= width <= 1024 for width in self.stem),
            f"a deep stem has three convolutions of 1 to 1024 channels, not {self.stem}",
            "those of ResNet-C and D have 32, 32 and 64",
        )

    @property
    def is_wide(self) -> bool:
        """Whether only bottlenecks can have it: groups, or other widths."""
        return (self.groups, self.width_per_group) != (1, 64)


@dataclass(frozen=True)
class ModelSpec:
    """A network of He et al. 2015 or of its successors, and where its weights came from.

    ``shortcut``: A zero-padded identity, B projection where the shape changes, C projections everywhere.
    ``plain``: the network without shortcuts. ``input_size``: side of the square input in pixels.
    ``weights``: torchvision's id, ``random``, or ``sha256:…`` of the file, with ``#NAME`` for one of several networks in it.
    ``layout``: of a successor.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = MappingProxyType({"extra": "forbid"})

    family: Family = "imagenet"
    depth: int = 50
    shortcut: Shortcut = "B"
    plain: bool = False
    classes: int = 1000
    input_size: int = 224
    weights: str = "random"
    layout: Layout = Layout()

    def __post_init__(self) -> None:
        families, shortcuts = get_args(Family), get_args(Shortcut)
        _require(self.family in families, f"there is no family {self.family!r}", f"choose one of {', '.join(families)}")
        _require(self.shortcut in shortcuts, f"there is no shortcut {self.shortcut!r}", f"choose one of {', '.join(shortcuts)}")
        if self.family != "cifar":
            depths = FAMILIES[self.family].depths
            hint = f"choose one of {', '.join(map(str, depths))}"
            _require(self.depth in depths, f"no ImageNet ResNet has depth {self.depth}", hint)
        else:
            _require(
                8 <= self.depth <= FAMILIES["cifar"].depths[-1] and self.depth % 6 == 2,
                f"a CIFAR ResNet has 6n+2 layers, up to 1202, which {self.depth} is not",
                "choose for example 20, 32, 44, 56, 110 or 1202",
            )
        _require(
            2 <= self.classes <= 100_000, f"classes must lie in 2..100000, not {self.classes}", "as many as there are labels"
        )
        _require(8 <= self.input_size <= 4096, f"input size must lie in 8..4096 pixels, not {self.input_size}", "224 or 32")
        self._check_layout()

    def _check_layout(self) -> None:
        bottlenecks = self.family != "cifar" and self.depth >= 50
        _require(
            bottlenecks or not self.layout.is_wide,
            f"{self.depth} layers have no bottlenecks, which alone have groups and widths",
            "choose 50, 101 or 152 layers",
        )
        _require(
            self.family == "imagenet" or not self.layout.stem,
            f"a deep stem is ImageNet's, not that of {self.family}",
            "choose the family imagenet",
        )
        _require(
            self.family == "small" or not self.layout.pooled,
            f"the stem of {self.family} has no choice of a max pool",
            "choose the family small",
        )
        _require(
            not self.layout.avg_down or (self.shortcut == "B" and not self.plain),
            "only projections of option B can average their input",
            "choose shortcut B",
        )

    @property
    def name(self) -> str:
        """Short name as in the literature and in timm, for example ``resnet50``, ``resnext50_32x4d`` or ``plain20-cifar``."""
        layout = self.layout
        kind, ending = "plain" if self.plain else "resnet", ""
        if layout.groups > 1:
            kind, ending = kind.replace("resnet", "resnext"), f"_{layout.groups}x{layout.width_per_group}d"
        elif layout.is_wide:
            whole, rest = divmod(layout.width_per_group, 64)
            kind, ending = f"wide_{kind}", f"_{layout.width_per_group / 64:g}" if rest else f"_{whole}"
        unnamed = f"-stem{'.'.join(map(str, layout.stem))}{'-avgdown' if layout.avg_down else ''}"
        letter = STEM_LETTERS.get((layout.stem, layout.avg_down), unnamed)
        family = "" if self.family == "imagenet" else f"-{self.family}{'-pooled' if layout.pooled else ''}"
        return f"{kind}{self.depth}{letter}{ending}{family}"


@dataclass(frozen=True)
class QuantRecipe:
    """How ranges are measured on the calibration set, what is corrected afterwards, and what stays in high precision.

    ``percentile`` in (50, 100] is the share of absolute values inside the range, used by method ``percentile``.
    ``keep_high_precision``: names of ONNX nodes that get no Q/DQ. ``epochs``: passes over the images for ``learned``.
    ``exact_input``: pad the image before it is quantized, so that pixel - 128 is its int8 value and nothing is rounded.
    ``stem_share``: the layers that read the first convolution's output stay in high precision, too, if they make up at most this
    share of the multiply-adds, in percent.
    """

    method: CalibMethod = "percentile"
    images: int = 512
    seed: int = 0
    percentile: float = 99.999
    keep_high_precision: tuple[str, ...] = ()
    correction: Correction = "none"
    epochs: int = 10
    exact_input: bool = False
    stem_share: float = 0.0

    def __post_init__(self) -> None:
        methods, corrections = get_args(CalibMethod), get_args(Correction)
        _require(
            self.method in methods, f"no calibration method is called {self.method!r}", f"choose one of {', '.join(methods)}"
        )
        _require(self.images >= 1, f"calibration needs at least one image, not {self.images}", "128 to 512 are enough")
        _require(
            50 < self.percentile <= 100,
            f"percentile must lie in (50, 100], not {self.percentile}",
            "99.999 is a good start for ResNets",
        )
        _require(self.seed >= 0, f"a seed is 0 or more, not {self.seed}", "any whole number; the same one draws the same images")
        _require(
            self.correction in corrections,
            f"no correction is called {self.correction!r}",
            f"choose one of {', '.join(corrections)}",
        )
        _require(1 <= self.epochs <= 1000, f"epochs must lie in 1..1000, not {self.epochs}", "10 is a good start")
        _require(0 <= self.stem_share <= 100, f"stem_share must lie in 0..100, not {self.stem_share}", "it is a share in percent")


@dataclass(frozen=True)
class BatchProfile:
    """Batch sizes that an engine accepts: any from ``min`` to ``max``, fastest at ``opt``."""

    min: int = 1
    opt: int = 1
    max: int = 1

    def __post_init__(self) -> None:
        rises = 1 <= self.min <= self.opt <= self.max
        _require(self.max <= _MAX_BATCH, f"a batch of {self.max} is too large", f"it is at most {_MAX_BATCH}")
        _require(rises, f"batch profile must rise from 1: {self.min}, {self.opt}, {self.max}", "for example 1,8,32")


def default_spec(
    family: Family,
    depth: int,
    *,
    shortcut: Shortcut | None = None,
    plain: bool = False,
    classes: int | None = None,
    input_size: int | None = None,
) -> ModelSpec:
    """The network of that depth with random weights; None takes the paper's shortcut and the family's classes and input size."""
    _require(family in FAMILIES, f"there is no family {family!r}", f"choose one of {', '.join(FAMILIES)}")
    usual = FAMILIES[family]
    width = usual.classes if classes is None else classes
    size = usual.input_size if input_size is None else input_size
    return ModelSpec(family, depth, shortcut or usual.shortcut, plain, width, size)


def default_preprocess(
    family: Family,
    input_size: int,
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Preprocess:
    """How the family's images are prepared: ImageNet's crop is 224 of 256 pixels, a CIFAR image is not cropped."""
    return Preprocess(FAMILIES[family].resize(input_size), input_size, mean=mean, std=std)
