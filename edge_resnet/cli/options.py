"""The options of ``edge-resnet build``, each a type with its help text. Does not know what they are used for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.core.records import CalibMethod
from edge_resnet.core.records import Correction as CorrectionName
from edge_resnet.core.records import Family as FamilyName
from edge_resnet.core.records import Interpolation as InterpolationName
from edge_resnet.core.records import Normalisation as NormalisationName
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
    "Interpolation",
    "Json",
    "Labels",
    "MaxDrop",
    "Method",
    "Model",
    "Normalise",
    "Onnx",
    "Output",
    "PerChannel",
    "Percentile",
    "Plain",
    "Quick",
    "Resize",
    "Seed",
    "Shortcut",
    "ValData",
    "Weights",
    "WeightsDepth",
    "WeightsFamily",
    "WeightsMean",
    "WeightsStd",
    "Workspace",
]

_NETWORK = "Network"
_INT8 = "Calibration"
_OUTPUT = "Output"

_DEPTH_HELP = "Layers: 18, 34, 50, 101, 152, or 6n+2 with --family cifar."
_WEIGHTS_DEPTH_HELP = f"{_DEPTH_HELP.rstrip('.')} (default: a file's own, else 50)."
_FAMILY_HELP = "Networks for ImageNet, the paper's for CIFAR, or ImageNet's with a 3x3 stem for small images."
_CHANNEL_HELP = "Normalisation per channel, RGB, in 0..1."
_WEIGHTS_HELP = (
    "default, v1 or v2 (torchvision's; a CIFAR ResNet-20 ships), random, FILE, FILE#NAME for a network in it, "
    "or hf://REPO/FILE@REVISION (file and revision may be left out)."
)
_MODEL_HELP = "A network's name, as edge-resnet models lists them, in place of --family and --depth."
_ONNX_HELP = "An FP32 classifier of another maker: one image (N, 3, H, W) in, a value per class out."
_NORMALISE_HELP = "What the network's input expects: ImageNet's normalisation, 0 to 1 (unit), or 0 to 255 (none)."
_SHORTCUT_HELP = "A zero-padded, B projection if the shape changes, C projections everywhere (default: B; cifar: A)."
_CLASSES_HELP = "Number of classes (default: 1000; cifar, small: 10)."
_SIZE_HELP = "Side of the square input in pixels (default: the weights' or 224; cifar, small: 32)."
_RESIZE_HELP = "Short side of an image before the crop, in pixels (default: the weights')."
_INTERPOLATION_HELP = "How pixels are resized (default: the weights')."
_DATA_HELP = "Images to calibrate on: folder, CSV, .npz, or digits, cifar10, imagenette (default: the recipe's)."
_PERCENTILE_HELP = "Percent of the values inside the range; implies the method percentile."
_RECIPE_HELP = "imagenet, cifar10, digits, camera, own, or a .toml file (default: the family's)."
_CORRECTION_HELP = "none, bias, or learned: rounding, ranges and biases (default: the recipe's)."
_DEVICE_HELP = "Where torch learns: cpu or cuda (default: a GPU if there is one)."
_QUICK_HELP = "INT8 by ranges and biases, without rounding and learning: takes less time, agrees with FP32 less often."
_BUDGET_HELP = "Points of top-1 that INT8 may lose; as few layers as necessary stay in FP16."
_VALIDATION_HELP = "Labelled images to measure --max-drop on."

Depth = Annotated[int, typer.Option(help=_DEPTH_HELP, rich_help_panel=_NETWORK)]
WeightsDepth = Annotated[int | None, typer.Option("--depth", help=_WEIGHTS_DEPTH_HELP, rich_help_panel=_NETWORK)]
Family = Annotated[FamilyName, typer.Option(help=_FAMILY_HELP, rich_help_panel=_NETWORK)]
WeightsFamily = Annotated[FamilyName | None, typer.Option("--family", help=_FAMILY_HELP, rich_help_panel=_NETWORK)]
Weights = Annotated[str, typer.Option(help=_WEIGHTS_HELP, rich_help_panel=_NETWORK)]
Shortcut = Annotated[ShortcutName | None, typer.Option(help=_SHORTCUT_HELP, rich_help_panel=_NETWORK)]
Plain = Annotated[bool, typer.Option("--plain", help="The same network without shortcuts.", rich_help_panel=_NETWORK)]
Classes = Annotated[int | None, typer.Option(help=_CLASSES_HELP, rich_help_panel=_NETWORK)]
Labels = Annotated[Path | None, typer.Option(help="Class names: a line each, or JSON.", rich_help_panel=_NETWORK)]
InputSize = Annotated[int | None, typer.Option(help=_SIZE_HELP, rich_help_panel=_NETWORK)]
Resize = Annotated[int | None, typer.Option(help=_RESIZE_HELP, rich_help_panel=_NETWORK)]
Interpolation = Annotated[InterpolationName | None, typer.Option(help=_INTERPOLATION_HELP, rich_help_panel=_NETWORK)]
Model = Annotated[str | None, typer.Option(metavar="NAME", help=_MODEL_HELP, rich_help_panel=_NETWORK)]
Onnx = Annotated[Path | None, typer.Option(metavar="FILE", help=_ONNX_HELP, rich_help_panel=_NETWORK)]
Normalise = Annotated[NormalisationName | None, typer.Option(help=_NORMALISE_HELP, rich_help_panel=_NETWORK)]
PerChannel = Annotated[tuple[float, float, float], typer.Option(metavar="R G B", help=_CHANNEL_HELP, rich_help_panel=_NETWORK)]
WeightsMean = Annotated[
    tuple[float, float, float] | None, typer.Option("--mean", metavar="R G B", help=_CHANNEL_HELP, rich_help_panel=_NETWORK)
]
WeightsStd = Annotated[
    tuple[float, float, float] | None, typer.Option("--std", metavar="R G B", help=_CHANNEL_HELP, rich_help_panel=_NETWORK)
]

Int8 = Annotated[bool, typer.Option("--int8", help="Calibrated INT8.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="Half precision if the device supports it.")]
Fp32 = Annotated[bool, typer.Option("--fp32", help="Full precision (the default).")]

CalibData = Annotated[str | None, typer.Option(help=_DATA_HELP, rich_help_panel=_INT8)]
CalibImages = Annotated[
    int | None, typer.Option(help="Number of calibration images (default: the recipe's).", rich_help_panel=_INT8)
]
Method = Annotated[
    CalibMethod | None,
    typer.Option(help="How ranges are derived from the values (default: the recipe's).", rich_help_panel=_INT8),
]
CalibRecipe = Annotated[str | None, typer.Option(help=_RECIPE_HELP, rich_help_panel=_INT8)]
Quick = Annotated[bool, typer.Option("--quick", help=_QUICK_HELP, rich_help_panel=_INT8)]
Device = Annotated[str | None, typer.Option(help=_DEVICE_HELP, rich_help_panel=_INT8)]
Correct = Annotated[CorrectionName | None, typer.Option(help=_CORRECTION_HELP, rich_help_panel=_INT8)]
MaxDrop = Annotated[float | None, typer.Option(help=_BUDGET_HELP, rich_help_panel=_INT8)]
ValData = Annotated[str | None, typer.Option(help=_VALIDATION_HELP, rich_help_panel=_INT8)]
Percentile = Annotated[float | None, typer.Option(help=_PERCENTILE_HELP, rich_help_panel=_INT8)]
Seed = Annotated[int | None, typer.Option(help="Seed for drawing the images (default: the recipe's).", rich_help_panel=_INT8)]
AllowRandom = Annotated[
    bool, typer.Option("--allow-random", help="Allow random weights, and noise as images.", rich_help_panel=_INT8)
]

Backend = Annotated[str, typer.Option(help="auto, tensorrt, tensorrt-rtx, openvino or onnxruntime.", rich_help_panel=_OUTPUT)]
Batch = Annotated[str, typer.Option(help="Batch size, or min,opt,max.", rich_help_panel=_OUTPUT)]
Workspace = Annotated[int | None, typer.Option(metavar="MiB", help="Memory limit of a TensorRT layer.", rich_help_panel=_OUTPUT)]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder (default: artifacts/NAME).", rich_help_panel=_OUTPUT)]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing artifact.", rich_help_panel=_OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.", rich_help_panel=_OUTPUT)]
