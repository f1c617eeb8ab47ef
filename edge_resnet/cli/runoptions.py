"""The options of ``edge-resnet run``, each a type with its help. Does not know how they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

__all__ = [
    "Artifact",
    "Backend",
    "Camera",
    "Duration",
    "Frames",
    "Headless",
    "Hysteresis",
    "Json",
    "Jsonl",
    "JsonlAppend",
    "JsonlMax",
    "KeepTrying",
    "MinConfidence",
    "Mqtt",
    "OnChange",
    "Rate",
    "RealTime",
    "RecordUncertain",
    "Roi",
    "SaveVideo",
    "SimulateInt8",
    "Smooth",
    "SmoothFrames",
    "Source",
    "Sync",
    "Top",
    "UncertainBelow",
    "UncertainDays",
    "UncertainMax",
    "Web",
    "WebOrigin",
    "WebToken",
    "Window",
]

_FRAMES, _ANSWERS, _OUTPUTS, _VIDEO = "Frames", "Answers", "Outputs", "Images and pages"
_ANY_SOURCE = "Camera, stream, image, folder, glob, video or synthetic://; repeatable: cameras in parallel, files in turn."

#: Repeated from edge_resnet.streaming.smoothing and edge_resnet.streaming.sinks.linefile, because importing these loads numpy.
SmoothName: TypeAlias = Literal["none", "exponential", "vote"]
SyncName: TypeAlias = Literal["never", "interval", "always"]

Artifact = Annotated[Path | None, typer.Argument(help="Folder written by build (default: the newest under artifacts/).")]
Camera = Annotated[list[int] | None, typer.Option(help="Camera index; repeatable.", rich_help_panel=_FRAMES)]
Source = Annotated[list[str] | None, typer.Option(help=_ANY_SOURCE, envvar="EDGE_RESNET_SOURCE", rich_help_panel=_FRAMES)]
RealTime = Annotated[bool, typer.Option("--realtime", help="Play videos at their own pace.", rich_help_panel=_FRAMES)]
KeepTrying = Annotated[
    bool, typer.Option("--keep-trying", help="Wait for cameras that are not there yet.", rich_help_panel=_FRAMES)
]
Roi = Annotated[
    str | None, typer.Option(metavar="X,Y,W,H", help="Classify this part of each frame, in pixels.", rich_help_panel=_FRAMES)
]
Rate = Annotated[float | None, typer.Option(help="Maximum frames per second and camera.", rich_help_panel=_FRAMES)]
Frames = Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.", rich_help_panel=_FRAMES)]
Duration = Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop after this time.", rich_help_panel=_FRAMES)]

Top = Annotated[int, typer.Option(min=1, help="Classes per prediction.", rich_help_panel=_ANSWERS)]
Smooth = Annotated[
    SmoothName, typer.Option(help="Smooth over frames: none, exponential mean, or vote.", rich_help_panel=_ANSWERS)
]
SmoothFrames = Annotated[int, typer.Option(help="Number of frames to smooth over.", rich_help_panel=_ANSWERS)]
Hysteresis = Annotated[
    float, typer.Option(help="Lead that another class needs to become the answer, 0 to 1.", rich_help_panel=_ANSWERS)
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        help="Probability below which the answer is unknown, 0 for never (default: the artifact's threshold).",
        rich_help_panel=_ANSWERS,
    ),
]
OnChange = Annotated[
    bool, typer.Option("--on-change", help="Write to --jsonl and --mqtt only when the answer changes.", rich_help_panel=_ANSWERS)
]

Headless = Annotated[bool, typer.Option("--headless", help="Print only the summary, on stderr.", rich_help_panel=_OUTPUTS)]
Jsonl = Annotated[
    str | None, typer.Option(help="Write a JSON line per frame to this file; - for stdout.", rich_help_panel=_OUTPUTS)
]
JsonlAppend = Annotated[bool, typer.Option("--jsonl-append", help="Append to the file.", rich_help_panel=_OUTPUTS)]
JsonlMax = Annotated[
    float | None,
    typer.Option(metavar="MiB", help="Start a new file at this size; five older ones are kept.", rich_help_panel=_OUTPUTS),
]
Sync = Annotated[
    SyncName,
    typer.Option("--jsonl-sync", help="When lines are synced to disk; interval: every second.", rich_help_panel=_OUTPUTS),
]
Mqtt = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        envvar="EDGE_RESNET_MQTT",
        help="Publish to mqtt://[user:password@]host[:port]/topic.",
        rich_help_panel=_OUTPUTS,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON alone on stdout.", rich_help_panel=_OUTPUTS)]

SaveVideo = Annotated[
    Path | None, typer.Option(help="Record frames with the answers drawn in: .mkv, .avi or .mp4.", rich_help_panel=_VIDEO)
]
Window = Annotated[bool, typer.Option("--window", help="Show frames and answers in a window.", rich_help_panel=_VIDEO)]
Web = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Serve a page with frames, answers and status.", rich_help_panel=_VIDEO)
]
WebToken = Annotated[
    str | None,
    typer.Option(envvar="EDGE_RESNET_WEB_TOKEN", help="Token for the page; required beyond 127.0.0.1.", rich_help_panel=_VIDEO),
]
WebOrigin = Annotated[
    str | None,
    typer.Option(
        metavar="ORIGIN", help="Where browsers see the page behind a TLS proxy: https://cam.example.", rich_help_panel=_VIDEO
    ),
]
RecordUncertain = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Save frames with a low probability, to label them later.", rich_help_panel=_VIDEO),
]
UncertainBelow = Annotated[float, typer.Option(help="Probability below which a frame is saved.", rich_help_panel=_VIDEO)]
UncertainDays = Annotated[
    float | None, typer.Option(metavar="DAYS", help="Delete saved frames that are older.", rich_help_panel=_VIDEO)
]
UncertainMax = Annotated[float, typer.Option(metavar="MiB", help="Maximum size of all saved frames.", rich_help_panel=_VIDEO)]

Backend = Annotated[str, typer.Option(help="auto, tensorrt, tensorrt-rtx, openvino, onnxruntime or fake.")]
SimulateInt8 = Annotated[bool, typer.Option("--simulate-int8", help="Compute TensorRT's INT8 results on this machine.")]
