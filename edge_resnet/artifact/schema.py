"""The records of manifest.json and calibration.json. Does not read or write files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias

from edge_resnet.core.records import BatchProfile, Family, ModelSpec, Precision, Preprocess, QuantRecipe, _require

__all__ = [
    "SCHEMA_VERSION",
    "BudgetReport",
    "CalibrationTable",
    "Computation",
    "ConfidenceRule",
    "FileEntry",
    "ForeignSpec",
    "Manifest",
    "QatReport",
    "WeightsOrigin",
    "nearest_family",
]

#: The schema version of the manifest. A reader refuses a newer one and upgrades an older one.
SCHEMA_VERSION = 3

#: How the logits are computed: INT8 in the form of CPUs or in TensorRT's, which differ in what is quantized.
Computation: TypeAlias = Literal["fp32", "fp16", "int8-cpu", "int8-tensorrt"]


@dataclass(frozen=True)
class ForeignSpec:
    """A classifier of another maker, which came as ONNX or as a torch module: what is known of it without knowing its layers.

    ``name``: of its file or class. ``input_size``: side of the square input in pixels. ``weights``: ``sha256:…`` of the file.
    ``changes``: what was changed beyond the input, a line each. Its other fields are properties of ``ModelSpec`` too.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = MappingProxyType({"extra": "forbid"})

    name: str
    classes: int
    input_size: int
    weights: str
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(
            re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", self.name) is not None, f"no network is named {self.name[:90]!a}"
        )
        _require(
            2 <= self.classes <= 100_000, f"classes must lie in 2..100000, not {self.classes}", "as many as there are labels"
        )
        _require(8 <= self.input_size <= 4096, f"input size must lie in 8..4096 pixels, not {self.input_size}", "224 or 32")

    @property
    def family(self) -> None:
        """None: it is of no family of edge-resnet's."""
        return


def nearest_family(model: ModelSpec | ForeignSpec) -> Family:
    """The family of a network; of a foreign one that which takes images of such a size, for what depends on the size alone."""
    return model.family or ("imagenet" if model.input_size >= 64 else "cifar")


@dataclass(frozen=True)
class QatReport:
    """How quantization-aware training changed weights, biases and ranges after calibration and correction.

    ``data``, ``images``, ``data_digest``: the training images. ``distil``: share of the loss that follows the FP32 graph.
    ``source``: source digest of the artifact from which it started. ``train_loss``: mean of the last epoch, of the labels only.
    ``difference``: squared error between the trained network and the simulated INT8 graph, relative to the power of the logits.
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
    """The range of each tensor of the corrected ``model.onnx``, from which every INT8 engine derives.

    ``amax``: tensor name → largest absolute value to represent, > 0, in the unit of the tensor. ``signed``: names of tensors with
    negative values. ``images``: number of images used. ``images_digest``: sha256 over them. ``model_digest``: sha256 of
    ``model.onnx``. ``qat``: the training afterwards, None without one.
    """

    amax: Mapping[str, float]
    signed: tuple[str, ...]
    recipe: QuantRecipe
    images: int
    images_digest: str
    model_digest: str
    qat: QatReport | None = None

    def __post_init__(self) -> None:
        _require(self.recipe.method != "auto", "calibration table: the method must be the selected one, not auto")
        bad = [name for name, value in self.amax.items() if not 0 < value < float("inf")]
        _require(not bad, f"calibration table: the range of {bad[:1]} is not a positive finite number")


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: ``sha256`` in hex, ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class BudgetReport:
    """The measurements for ``--max-drop`` on the validation images: top-1 of FP32 and of simulated TensorRT INT8, in percent.

    ``drop``: FP32 - INT8 in points; ``drop_ci95``: its paired 95 % confidence interval. ``mcnemar_p``: exact two-sided p-value of
    McNemar's test that the two networks are wrong equally often. ``kept``: nodes in high precision, the most damaging first.
    ``ranking``: node → mean squared error of the logits relative to their power if only that node is quantized; largest first.
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
class ConfidenceRule:
    """How logits become probabilities that can be trusted, and below which one the answer is ``unknown``.

    ``temperature``: logits are divided by it before softmax, > 0. ``threshold``: an answer with a lower probability is
    ``unknown``, in [0, 1). ``max_wrong``: the share of the answers, in percent, of which at most so many are to be wrong.
    ``computation``, ``backend``: what the labelled images were classified with. ``source``: the artifact's source digest then.
    ``data``, ``data_digest``, ``images``: the labelled images. ``answered``: those at or above the threshold, ``wrong`` of which
    are classified wrongly; ``wrong_bound``: the upper confidence bound (95 %) of that share, in percent. ``held_out_answered``,
    ``held_out_wrong``: the same counts where each image was judged by a rule that other images gave. ``ece_before``,
    ``ece_after``: expected calibration error in points, at temperature 1 and held out at the fitted one.
    """

    temperature: float
    threshold: float
    max_wrong: float
    computation: Computation
    backend: str
    source: str
    data: str
    data_digest: str
    images: int
    answered: int
    wrong: int
    wrong_bound: float
    held_out_answered: int
    held_out_wrong: int
    ece_before: float
    ece_after: float

    def __post_init__(self) -> None:
        _require(isfinite(self.temperature) and self.temperature > 0, "confidence: the temperature must be above 0")
        _require(0 <= self.threshold < 1, "confidence: the threshold lies in [0, 1)")


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights came from. ``source``: an address, ``hf://REPO/FILE``, the name of a file, or a word.

    ``revision``: the commit of a repository. ``sha256``: of the file, in hex. ``preprocessing``: who says how images are
    prepared. ``license``: as the repository says. Each but the source may be empty.
    """

    source: str
    revision: str = ""
    sha256: str = ""
    preprocessing: str = ""
    license: str = ""

    @property
    def address(self) -> str:
        """The source with its revision, which gives the same file again."""
        return f"{self.source}@{self.revision}" if self.revision else self.source


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``, which describes an artifact.

    ``calibration``: the origin of the ranges, for people (None unless INT8). ``export_max_abs``: largest difference of a logit
    between torch and ONNX Runtime after the export. ``tools``: package → version. ``files``: relative name → entry. ``budget``:
    the measurements for ``--max-drop`` (None without it). ``warnings``: those of the INT8 build. ``origin``: of the
    weights; None in artifacts of older versions. ``model``: a network of He et al. 2015, or a foreign one (since schema 3).
    ``confidence``: temperature and threshold, None if none were found.
    """

    schema_version: int
    model: ModelSpec | ForeignSpec
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
    origin: WeightsOrigin | None = None
    confidence: ConfidenceRule | None = None
