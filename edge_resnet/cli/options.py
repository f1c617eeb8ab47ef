"""The options of ``edge-resnet build``, each a type with its help. Knows nothing of what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.core.records import CalibMethod
from edge_resnet.core.records import Correction as CorrectionName
from edge_resnet.core.records import Family as FamilyName
from edge_resnet.core.records import Shortcut as ShortcutName

__all__ = [
    "AllowRandom",
    "Backend",
    "Batch",
    "CalibData",
    "CalibImages",
    "CalibRecipe",
    "Classes",
    "Correct",
    "Depth",
    "Family",
    "Force",
    "Fp16",
    "Fp32",
    "InputSize",
    "Int8",
    "Json",
    "Labels",
    "MaxDrop",
    "Method",
    "Output",
    "PerChannel",
    "Percentile",
    "Plain",
    "Seed",
    "Shortcut",
    "ValData",
    "Weights",
    "Workspace",
]

_NETWORK = "Network"
_INT8 = "Calibration"
_OUTPUT = "Output"

_ANY_DEPTH = "Layers: 18, 34, 50, 101, 152, or 6n+2 with --family cifar."
_ANY_WEIGHTS = "default (torchvision's V1; CIFAR's 20 ships), random, or a .pth, .pt, .th, .safetensors file."
_ANY_SHORTCUT = "A zero-padded, B projection where shapes change, C projections (default: B, or A for cifar)."
_ANY_CLASSES = "Width of the head (default: 1000, or 10 for cifar)."
_ANY_SIZE = "Side of the square input in pixels (default: 224, or 32 for cifar)."
_ANY_DATA = "Folder, CSV, .npz, or digits, cifar10, imagenette (default: the recipe's)."
_ANY_SHARE = "Share of the values inside the range, percent; chooses method percentile."
_ANY_RECIPE = "imagenet, cifar10, digits, camera, or your .toml (default: the family's)."
_ANY_CORRECTION = "none, bias, or learned: ranges, biases and rounding (default: the recipe's)."
_ANY_BUDGET = "Points of top-1 that INT8 may lose; as few layers as that takes stay in FP16."
_ANY_VALIDATION = "Labelled images that --max-drop is measured on."

Depth = Annotated[int, typer.Option(help=_ANY_DEPTH, rich_help_panel=_NETWORK)]
Family = Annotated[FamilyName, typer.Option(help="ImageNet's networks or CIFAR's.", rich_help_panel=_NETWORK)]
Weights = Annotated[str, typer.Option(help=_ANY_WEIGHTS, rich_help_panel=_NETWORK)]
Shortcut = Annotated[ShortcutName | None, typer.Option(help=_ANY_SHORTCUT, rich_help_panel=_NETWORK)]
Plain = Annotated[bool, typer.Option("--plain", help="The twin without shortcuts.", rich_help_panel=_NETWORK)]
Classes = Annotated[int | None, typer.Option(help=_ANY_CLASSES, rich_help_panel=_NETWORK)]
Labels = Annotated[Path | None, typer.Option(help="A text file with a class name per line.", rich_help_panel=_NETWORK)]
InputSize = Annotated[int | None, typer.Option(help=_ANY_SIZE, rich_help_panel=_NETWORK)]
PerChannel = Annotated[tuple[float, float, float], typer.Option(help="Per channel, RGB, in 0..1.", rich_help_panel=_NETWORK)]

Int8 = Annotated[bool, typer.Option("--int8", help="Calibrated INT8.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="Half precision where the device has it.")]
Fp32 = Annotated[bool, typer.Option("--fp32", help="Full precision (the default).")]

CalibData = Annotated[str | None, typer.Option(help=_ANY_DATA, rich_help_panel=_INT8)]
CalibImages = Annotated[int | None, typer.Option(help="How many of them (default: 512).", rich_help_panel=_INT8)]
Method = Annotated[
    CalibMethod | None, typer.Option(help="How a range is read off the values (default: the recipe's).", rich_help_panel=_INT8)
]
CalibRecipe = Annotated[str | None, typer.Option(help=_ANY_RECIPE, rich_help_panel=_INT8)]
Correct = Annotated[CorrectionName | None, typer.Option(help=_ANY_CORRECTION, rich_help_panel=_INT8)]
MaxDrop = Annotated[float | None, typer.Option(help=_ANY_BUDGET, rich_help_panel=_INT8)]
ValData = Annotated[str | None, typer.Option(help=_ANY_VALIDATION, rich_help_panel=_INT8)]
Percentile = Annotated[float | None, typer.Option(help=_ANY_SHARE, rich_help_panel=_INT8)]
Seed = Annotated[int | None, typer.Option(help="Which of the images are drawn.", rich_help_panel=_INT8)]
AllowRandom = Annotated[
    bool, typer.Option("--allow-random", help="Calibrate random weights, or on noise.", rich_help_panel=_INT8)
]

Backend = Annotated[str, typer.Option(help="auto, tensorrt, openvino or onnxruntime.", rich_help_panel=_OUTPUT)]
Batch = Annotated[str, typer.Option(help="Batch size, or smallest,usual,largest.", rich_help_panel=_OUTPUT)]
Workspace = Annotated[
    int | None, typer.Option(metavar="MiB", help="Memory that a layer of TensorRT's may use.", rich_help_panel=_OUTPUT)
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder (default: artifacts/NAME).", rich_help_panel=_OUTPUT)]
Force = Annotated[bool, typer.Option("--force", help="Replace an artifact that is there.", rich_help_panel=_OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.", rich_help_panel=_OUTPUT)]
