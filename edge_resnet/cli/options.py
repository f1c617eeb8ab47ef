"""The options of ``edge-resnet build``, each a type with its help text. Does not know what they do."""

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

_HELP_DEPTH = "Number of layers: 18, 34, 50, 101, 152, or 6n+2 with --family cifar."
_HELP_WEIGHTS = "default (torchvision V1; CIFAR-20: shipped), random, or a .pth, .pt, .th or .safetensors file."
_HELP_SHORTCUT = "A zero-padded, B projection if the shape changes, C projections (default: B, cifar: A)."
_HELP_CLASSES = "Number of classes (default: 1000, cifar: 10)."
_HELP_SIZE = "Side of the square input in pixels (default: 224, cifar: 32)."
_HELP_DATA = "Folder, CSV, .npz, or digits, cifar10, imagenette (default: the recipe's)."
_HELP_SHARE = "Percent of the values inside the range; implies method percentile."
_HELP_RECIPE = "imagenet, cifar10, digits, camera, or a .toml file (default: the family's)."
_HELP_CORRECTION = "none, bias, or learned: ranges, biases, rounding (default: the recipe's)."
_HELP_BUDGET = "Points of top-1 that INT8 may lose; as few layers as needed stay in FP16."
_HELP_VALIDATION = "Labelled images on which --max-drop is measured."

Depth = Annotated[int, typer.Option(help=_HELP_DEPTH, rich_help_panel=_NETWORK)]
Family = Annotated[FamilyName, typer.Option(help="ImageNet or CIFAR networks.", rich_help_panel=_NETWORK)]
Weights = Annotated[str, typer.Option(help=_HELP_WEIGHTS, rich_help_panel=_NETWORK)]
Shortcut = Annotated[ShortcutName | None, typer.Option(help=_HELP_SHORTCUT, rich_help_panel=_NETWORK)]
Plain = Annotated[bool, typer.Option("--plain", help="The plain network, without shortcuts.", rich_help_panel=_NETWORK)]
Classes = Annotated[int | None, typer.Option(help=_HELP_CLASSES, rich_help_panel=_NETWORK)]
Labels = Annotated[Path | None, typer.Option(help="Text file with a class name per line.", rich_help_panel=_NETWORK)]
InputSize = Annotated[int | None, typer.Option(help=_HELP_SIZE, rich_help_panel=_NETWORK)]
PerChannel = Annotated[tuple[float, float, float], typer.Option(help="Per channel, RGB, in 0..1.", rich_help_panel=_NETWORK)]

Int8 = Annotated[bool, typer.Option("--int8", help="Calibrated INT8.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="Half precision, if the device has it.")]
Fp32 = Annotated[bool, typer.Option("--fp32", help="Full precision (the default).")]

CalibData = Annotated[str | None, typer.Option(help=_HELP_DATA, rich_help_panel=_INT8)]
CalibImages = Annotated[int | None, typer.Option(help="Number of calibration images (default: 512).", rich_help_panel=_INT8)]
Method = Annotated[
    CalibMethod | None, typer.Option(help="How ranges are derived (default: the recipe's).", rich_help_panel=_INT8)
]
CalibRecipe = Annotated[str | None, typer.Option(help=_HELP_RECIPE, rich_help_panel=_INT8)]
Correct = Annotated[CorrectionName | None, typer.Option(help=_HELP_CORRECTION, rich_help_panel=_INT8)]
MaxDrop = Annotated[float | None, typer.Option(help=_HELP_BUDGET, rich_help_panel=_INT8)]
ValData = Annotated[str | None, typer.Option(help=_HELP_VALIDATION, rich_help_panel=_INT8)]
Percentile = Annotated[float | None, typer.Option(help=_HELP_SHARE, rich_help_panel=_INT8)]
Seed = Annotated[int | None, typer.Option(help="Seed that draws the images.", rich_help_panel=_INT8)]
AllowRandom = Annotated[
    bool, typer.Option("--allow-random", help="Allow random weights and images of noise.", rich_help_panel=_INT8)
]

Backend = Annotated[str, typer.Option(help="auto, tensorrt, openvino or onnxruntime.", rich_help_panel=_OUTPUT)]
Batch = Annotated[str, typer.Option(help="Batch size, or minimum,optimum,maximum.", rich_help_panel=_OUTPUT)]
Workspace = Annotated[
    int | None, typer.Option(metavar="MiB", help="Memory that a TensorRT layer may use.", rich_help_panel=_OUTPUT)
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Output folder (default: artifacts/NAME).", rich_help_panel=_OUTPUT)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing artifact.", rich_help_panel=_OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.", rich_help_panel=_OUTPUT)]
