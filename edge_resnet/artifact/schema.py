"""The records of manifest.json and calibration.json. Knows no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_resnet.core.records import BatchProfile, ModelSpec, Precision, Preprocess, QuantRecipe, _require

__all__ = ["SCHEMA_VERSION", "BudgetReport", "CalibrationTable", "FileEntry", "Manifest", "QatReport"]


#: The manifest's schema. A reader refuses a newer one and upgrades an older one.
SCHEMA_VERSION = 2


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
