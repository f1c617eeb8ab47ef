"""The records that all rooms share: frozen, checked once when made. Knows no numpy, no file and no device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from edge_resnet.core.errors import ConfigError

__all__ = [
    "Answer",
    "BatchProfile",
    "BudgetReport",
    "CalibMethod",
    "CalibrationTable",
    "ClassScore",
    "Correction",
    "FAMILY_SHORTCUT",
    "Family",
    "FileEntry",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Manifest",
    "ModelSpec",
    "Precision",
    "Prediction",
    "Preprocess",
    "Progress",
    "QatReport",
    "QuantRecipe",
    "SCHEMA_VERSION",
    "Shortcut",
]

Family: TypeAlias = Literal["imagenet", "cifar"]
Shortcut: TypeAlias = Literal["A", "B", "C"]
Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
#: How a range is read off a histogram; ``auto`` asks for the one that agrees best with FP32 on pictures held out.
CalibMethod: TypeAlias = Literal["auto", "max", "percentile", "mse", "entropy"]
#: What is corrected after the ranges are read: nothing, the biases, or ranges, biases and rounding learned without labels.
Correction: TypeAlias = Literal["none", "bias", "learned"]
#: Called as ``progress(stage, done, total)``, first with ``done == 0``; long work reports through it and nothing else.
Progress: TypeAlias = Callable[[str, int, int], None]

#: The manifest's schema. A reader refuses a newer one and upgrades an older one.
SCHEMA_VERSION = 2

#: Channel statistics of ImageNet in [0, 1], RGB (torchvision's; most CIFAR repositories use them too).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

IMAGENET_DEPTHS = (18, 34, 50, 101, 152)
#: The option of the paper's networks of each family: B (table 4) and A (section 4.2).
FAMILY_SHORTCUT: Mapping[Family, Shortcut] = MappingProxyType({"imagenet": "B", "cifar": "A"})


def _require(condition: bool, message: str, hint: str = "") -> None:
    if not condition:
        raise ConfigError(message, hint=hint)


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input: antialiased bilinear resize, centre crop, normalisation in the graph.

    ``resize``: short side in pixels after the resize. ``crop``: side of the centred square, in pixels.
    ``mean``, ``std``: per channel, RGB, in [0, 1] (torchvision's convention).
    """

    resize: int = 256
    crop: int = 224
    interpolation: Literal["bilinear"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _require(1 <= self.crop <= 4096, f"crop must lie in 1..4096 pixels, not {self.crop}", "ImageNet networks take 224")
        _require(
            self.crop <= self.resize <= 8192,
            f"resize must lie in {self.crop}..8192 pixels, not {self.resize}",
            "the crop is cut from the resized picture",
        )
        _require(all(0 <= m <= 1 for m in self.mean), f"mean must lie in [0, 1], not {self.mean}", "divide by 255")
        _require(all(0 < s <= 1 for s in self.std), f"std must lie in (0, 1], not {self.std}", "divide by 255")


@dataclass(frozen=True)
class ModelSpec:
    """Which network of He et al. 2015, and where its weights came from.

    ``shortcut``: A zero-padded identity, B projection where the shape changes, C projections everywhere.
    ``plain``: the twin without shortcuts. ``input_size``: side of the square input in pixels.
    ``weights``: torchvision's id, ``random``, or ``sha256:…`` of the file.
    """

    family: Family = "imagenet"
    depth: int = 50
    shortcut: Shortcut = "B"
    plain: bool = False
    classes: int = 1000
    input_size: int = 224
    weights: str = "random"

    def __post_init__(self) -> None:
        if self.family == "imagenet":
            depths = ", ".join(map(str, IMAGENET_DEPTHS))
            _require(self.depth in IMAGENET_DEPTHS, f"no ImageNet ResNet has depth {self.depth}", f"choose one of {depths}")
        else:
            _require(
                self.depth >= 8 and self.depth % 6 == 2,
                f"a CIFAR ResNet has 6n+2 layers, {self.depth} is not that",
                "choose for example 20, 32, 44, 56, 110 or 1202",
            )
        _require(2 <= self.classes <= 100_000, f"classes must lie in 2..100000, not {self.classes}", "as many as labels")
        _require(8 <= self.input_size <= 4096, f"input size must lie in 8..4096 pixels, not {self.input_size}", "224 or 32")

    @property
    def name(self) -> str:
        """Short name as the literature writes it, for example ``resnet50`` or ``plain20-cifar``."""
        stem = f"{'plain' if self.plain else 'resnet'}{self.depth}"
        return stem if self.family == "imagenet" else f"{stem}-cifar"


@dataclass(frozen=True)
class QuantRecipe:
    """How ranges are read off the calibration images, what is corrected after, and what stays in high precision.

    ``percentile`` in (50, 100] is the share of absolute values inside the range, used by method ``percentile``.
    ``keep_high_precision``: names of ONNX nodes that get no Q/DQ. ``epochs``: passes over the images that ``learned`` makes.
    ``exact_input``: pad the picture before it is quantized, so that pixel - 128 is its int8 value and nothing is rounded.
    """

    method: CalibMethod = "percentile"
    images: int = 512
    seed: int = 0
    percentile: float = 99.999
    keep_high_precision: tuple[str, ...] = ()
    correction: Correction = "none"
    epochs: int = 10
    exact_input: bool = False

    def __post_init__(self) -> None:
        _require(self.method in get_args(CalibMethod), f"no calibration method is called {self.method!r}")
        _require(self.images >= 1, f"calibration needs at least one image, not {self.images}", "128 to 512 are enough")
        _require(
            50 < self.percentile <= 100,
            f"percentile must lie in (50, 100], not {self.percentile}",
            "99.999 is a good start for ResNets",
        )
        _require(self.seed >= 0, f"a seed is 0 or more, not {self.seed}", "any whole number; the same one draws the same images")
        _require(self.correction in get_args(Correction), f"no correction is called {self.correction!r}")
        _require(1 <= self.epochs <= 1000, f"epochs must lie in 1..1000, not {self.epochs}", "10 is a good start")


@dataclass(frozen=True)
class QatReport:
    """What quantization-aware training did to weights, biases and ranges after they were calibrated and corrected.

    ``data``, ``images``, ``data_digest``: what it learned from. ``distil``: the FP32 graph's share of the loss. ``source``: the
    truth digest of the artifact that it began with. ``train_loss``: mean of the last epoch, of the labels alone. ``difference``:
    squared error between the trained network and the INT8 graph simulated, over the power of the logits.
    """

    data: str
    images: int
    data_digest: str
    epochs: float
    steps: int
    batch: int
    rate: float
    augment: str
    seed: int
    distil: float
    source: str
    train_loss: float
    difference: float


@dataclass(frozen=True)
class CalibrationTable:
    """The largest absolute value to represent, per tensor of ``model.onnx`` as corrected: what every INT8 engine derives from.

    ``amax``: tensor name → range bound > 0 in the tensor's own unit. ``signed``: names whose values go below zero.
    ``images``: how many were used. ``images_digest``: sha256 over them. ``model_digest``: sha256 of ``model.onnx``.
    ``qat``: what was trained after, None where nothing was.
    """

    amax: Mapping[str, float]
    signed: tuple[str, ...]
    recipe: QuantRecipe
    images: int
    images_digest: str
    model_digest: str
    qat: QatReport | None = None

    def __post_init__(self) -> None:
        _require(self.recipe.method != "auto", "calibration table: auto is a request, the table holds the method that was chosen")
        bad = [name for name, value in self.amax.items() if not 0 < value < float("inf")]
        _require(not bad, f"calibration table: the range of {bad[:1]} is not a positive finite number")


@dataclass(frozen=True)
class BatchProfile:
    """Batch sizes that an engine serves: any from ``min`` to ``max``, fastest at ``opt``."""

    min: int = 1
    opt: int = 1
    max: int = 1

    def __post_init__(self) -> None:
        rises = 1 <= self.min <= self.opt <= self.max
        _require(rises, f"batch profile must rise from 1: {self.min}, {self.opt}, {self.max}", "for example 1,8,32")


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: ``sha256`` in hex, ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class BudgetReport:
    """What ``--max-drop`` found on the validation images: top-1 of FP32 and of TensorRT's INT8 simulated, in percent.

    ``drop``: FP32 - INT8 in points, ``drop_ci95`` its paired 95 % interval. ``mcnemar_p``: exact two-sided p-value of McNemar's
    test that the two networks err equally often. ``kept``: nodes in high precision, the most damaging first. ``ranking``: node →
    mean squared error of the logits, relative to their power, where that node alone is quantized; the largest first.
    """

    max_drop: float
    images: int
    fp32_top1: float
    int8_top1: float
    drop: float
    drop_ci95: tuple[float, float]
    mcnemar_p: float
    kept: tuple[str, ...]
    ranking: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Manifest:
    """What an artifact is: the content of ``manifest.json``.

    ``calibration``: what the ranges came from, for people (None unless INT8). ``export_max_abs``: largest difference of a
    logit between torch and ONNX Runtime after export. ``tools``: package → version. ``files``: relative name → entry.
    ``budget``: what ``--max-drop`` measured (None where it was not asked for). ``warnings``: what the INT8 build found
    suspicious.
    """

    schema_version: int
    model: ModelSpec
    preprocess: Preprocess
    precision: Precision
    batch: BatchProfile
    recipe: QuantRecipe | None
    calibration: str | None
    accuracy: Mapping[str, float] | None
    export_max_abs: float
    created: str
    tools: Mapping[str, str]
    files: Mapping[str, FileEntry]
    budget: BudgetReport | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassScore:
    """One answer: ``probability`` in [0, 1] after softmax."""

    class_index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What is held to be seen: a class, or ``unknown`` with ``class_index`` -1 where no class is sure enough.

    ``probability``: smoothed. ``changed``: it differs from the answer to the source's frame before; the first one does.
    """

    class_index: int
    label: str
    probability: float
    changed: bool


@dataclass(frozen=True)
class Prediction:
    """What the network says of one frame.

    ``source``: where the frame came from. ``frame``: its index there. ``captured_ns``: monotonic clock at capture.
    ``age_ms``: capture to prediction. ``top``: best first. ``stages_ms``: preprocess, inference, postprocess. ``wall_ns``: wall
    clock at capture, since 1970. ``answer``: what the run holds to be seen after smoothing, None where nobody asked.
    """

    source: str
    frame: int
    captured_ns: int
    age_ms: float
    top: tuple[ClassScore, ...]
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    wall_ns: int = 0
    answer: Answer | None = None
