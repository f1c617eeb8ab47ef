"""Reads the JSON of TensorRT's engine inspector: the precision, layout and tactic of each layer, and its time from a profile.

Both forms are read: that of TensorRT 8 to 10, with ``Bindings`` and one ``Format/Datatype`` per tensor, and that of 11, with
``I/O Tensors`` and two separate fields (NVIDIA, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x"). Unknown fields
are ignored; a missing one reads ``-``. Does not need TensorRT.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from edge_resnet.core.errors import ArtifactError
from edge_resnet.core.files import read_bounded
from edge_resnet.measurement import myelin

__all__ = [
    "UNKNOWN",
    "Layer",
    "LayerListing",
    "LayerTensor",
    "LayerTime",
    "parse_layers",
    "parse_profile",
    "read_layers",
    "with_times",
]

UNKNOWN = "-"
#: Patterns for the names of types in the inspector's versions and in tactics, tried in this order: "bf16" contains "f16".
_TYPES = (
    (r"bf16|bfloat16", "BF16"), (r"uint8|\bu8\b", "UINT8"), (r"int8|\bi8", "INT8"), (r"fp8|float8|e4m3", "FP8"),
    (r"int4\b", "INT4"), (r"fp4|float4|e2m1", "FP4"), (r"fp16|float16|half|\bf16", "FP16"), (r"fp32|float|tf32|\bf32", "FP32"),
    (r"int32|\bi32", "INT32"), (r"int64|\bi64", "INT64"), (r"bool", "BOOL"),
)  # fmt: skip
#: Names of older tactics hold an instruction instead of a type: h884cudnn, i8816cudnn, scudnn.
_INSTRUCTIONS = ((r"\b(i\d{4,}|imma)", "INT8"), (r"\b(h\d{3,}|hcudnn|hgemm|hmma)", "FP16"), (r"\b(scudnn|sgemm)", "FP32"))
#: The inspector's description of a memory layout → its name in TensorFormat (TensorRT, "Data Format Description").
_WIDE = {"two": "CHW2", "four": "CHW4", "eight": "CHW8", "sixteen": "CHW16", "thirty-two": "CHW32"}
#: Bytes of a listing; that of a network of 1202 layers has a few MiB.
_MAX_JSON = 256 << 20
#: Sizes and times from here on are damage, as are NaN and infinity: larger integers are not exact as floats.
_LARGEST = 2**53


@dataclass(frozen=True)
class LayerTensor:
    """An input or output of a layer.

    ``dtype`` is INT8, FP16, …; ``layout`` is linear, CHW32, HWC8, …; a dynamic size in ``shape`` is -1.
    """

    name: str
    dtype: str = UNKNOWN
    layout: str = UNKNOWN
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class LayerTime:
    """The average time of a layer in milliseconds, and in percent of all layers."""

    milliseconds: float
    percent: float


@dataclass(frozen=True)
class Layer:
    """A layer of the engine. ``kind`` is the inspector's LayerType, ``weights`` the type of a convolution's weights.

    ``adds`` says how the layer adds two tensors of the network: ``fused`` into a convolution, ``alone``, or not at all (empty).
    """

    name: str
    kind: str = UNKNOWN
    inputs: tuple[LayerTensor, ...] = ()
    outputs: tuple[LayerTensor, ...] = ()
    tactic: str = UNKNOWN
    weights: str = UNKNOWN
    adds: str = ""
    time: LayerTime | None = None

    @property
    def multiplies(self) -> bool:
        """Whether it is a convolution or a matrix product, which gain most from INT8."""
        # By kind, not by name: the name of a pooling layer can hold that of the convolution before it.
        kinds = r"conv(?!ert)|gemm|matrix|matmul|fullyconnected"
        known = re.search(kinds, self.kind, re.IGNORECASE) is not None or myelin.multiplies(self.kind, self.name)
        return known and not self.moves

    @property
    def moves(self) -> bool:
        """Whether it only changes a tensor's type or memory layout."""
        kinds = r"reformat|copy|^quantize$|^dequantize$|^cast$|^transpose$"
        copies = re.search(kinds, self.kind, re.IGNORECASE) is not None or self.name.startswith("Reformatting CopyNode")
        return copies or myelin.moves(self.kind, self.name)

    @property
    def works(self) -> bool:
        """Whether the GPU computes anything for it, which it does not for constants, markers, views and shapes."""
        return re.search(r"^(noop|constant|signal|wait|shapehosttodevice|shape_call|assertion)", self.kind, re.I) is None

    @property
    def precision(self) -> str:
        """The type that it computes in.

        For a product the type of its weights, else of its tactic, else of its input. For any other layer the type of its input,
        followed by an arrow and the type of its output if that differs.
        """
        reads, writes = _first_type(self.inputs), _first_type(self.outputs)
        if self.multiplies:
            found = (self.weights, _type_of_tactic(self.tactic), reads, writes)
            return next((dtype for dtype in found if dtype != UNKNOWN), UNKNOWN)
        if UNKNOWN in (reads, writes) or reads == writes:
            return writes if reads == UNKNOWN else reads
        return f"{reads}→{writes}"


@dataclass(frozen=True)
class LayerListing:
    """An engine's layers in execution order.

    ``tensors`` names its inputs and outputs. ``detailed``: more than names are known. ``timed_ms`` is the total time of all
    layers in the profile, None without one.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...] = ()
    detailed: bool = False
    timed_ms: float | None = None


def read_layers(path: Path, profile: Path | None = None) -> LayerListing:
    """Read a listing from an engine folder or ``trtexec --exportLayerInfo``, and a profile of ``trtexec --exportProfile``.

    Raises ArtifactError if a file cannot be read or has another form.
    """
    listing = parse_layers(_load(path, "edge-resnet compile or trtexec --exportLayerInfo writes it again"), str(path))
    if profile is None:
        return listing
    return with_times(listing, parse_profile(_load(profile, "trtexec --exportProfile writes it again"), str(profile)))


def parse_layers(document: object, source: str = "the listing") -> LayerListing:
    """The listing from the parsed JSON of a whole engine. Raises ArtifactError if it holds no list of layers."""
    found = document.get("Layers") if isinstance(document, Mapping) else None
    if not isinstance(found, list):
        raise ArtifactError(
            f"{source} is not a listing of the engine inspector: it has no list of Layers",
            hint="give the JSON that edge-resnet compile or trtexec --exportLayerInfo wrote",
        )
    assert isinstance(document, Mapping)
    layers = tuple(_layer(entry) for entry in found if isinstance(entry, (str, Mapping)))
    bindings = [*_list(document.get("Bindings")), *_list(document.get("I/O Tensors"))]
    tensors = tuple(_text(entry.get("Name")) if isinstance(entry, Mapping) else _text(entry) for entry in bindings)
    return LayerListing(layers, tensors, detailed=any(isinstance(entry, Mapping) for entry in found))


def parse_profile(document: object, source: str = "the profile") -> tuple[tuple[str, float], ...]:
    """Each layer's name and average milliseconds from the parsed JSON of trtexec's profile; a name may occur twice.

    Raises ArtifactError if it is not a list, or no entry has a time.
    """
    entries = [entry for entry in _list(document) if isinstance(entry, Mapping)]
    times = tuple(
        (_text(entry.get("name")), float(taken))
        for entry in entries
        if _is_number(taken := entry.get("averageMs")) and taken >= 0 and isinstance(entry.get("name"), str)
    )
    if not times:
        raise ArtifactError(
            f"{source} is not a profile: no entry has a name and averageMs",
            hint="trtexec --loadEngine=plan.engine --exportProfile=profile.json --separateProfileRun writes one",
        )
    return times


def with_times(listing: LayerListing, times: Iterable[tuple[str, float]]) -> LayerListing:
    """The listing with the average times of its layers; layers of the same name get their times in order."""
    waiting: dict[str, deque[float]] = defaultdict(deque)
    for name, milliseconds in times:
        waiting[name].append(milliseconds)
    total = math.fsum(milliseconds for queue in waiting.values() for milliseconds in queue)
    layers = []
    for layer in listing.layers:
        taken = waiting[layer.name].popleft() if waiting[layer.name] else None
        time = None if taken is None else LayerTime(taken, 100 * taken / total if total else 0.0)
        layers.append(replace(layer, time=time))
    return LayerListing(tuple(layers), listing.tensors, listing.detailed, total)


def _load(path: Path, hint: str) -> object:
    try:
        return json.loads(read_bounded(path, _MAX_JSON, regular=True))
    except FileNotFoundError as error:
        raise ArtifactError(f"no file {path}", hint=hint) from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: it is not JSON", hint=hint) from error


def _layer(entry: str | Mapping[str, object]) -> Layer:
    if isinstance(entry, str):
        return Layer(_text(entry))
    weights = entry.get("Weights")
    kind = _text(entry.get("LayerType"))
    layer = Layer(
        name=_text(entry.get("Name")),
        kind=kind if kind != UNKNOWN else _text(entry.get("ParameterType")),
        inputs=_tensors(entry.get("Inputs")),
        outputs=_tensors(entry.get("Outputs")),
        tactic=next((text for key in ("TacticName", "TacticValue") if (text := _text(entry.get(key))) != UNKNOWN), UNKNOWN),
        weights=_type_of(_text(weights.get("Type"))) if isinstance(weights, Mapping) else UNKNOWN,
    )
    return replace(layer, adds=_adds(layer, entry))


def _adds(layer: Layer, entry: Mapping[str, object]) -> str:
    if layer.multiplies:
        # Myelin marks no residual: it is a second tensor of the output's shape; other inputs are weights and dynamic shapes.
        results = {tensor.shape for tensor in layer.outputs if tensor.shape}
        second = any(tensor.shape in results for tensor in layer.inputs[1:])
        inside = second and myelin.adds(layer.kind, layer.name)
        return "fused" if inside or entry.get("HasResidual") in (1, True) else ""
    computed = [tensor for tensor in layer.inputs if tensor.dtype not in ("INT32", "INT64")]  # and no dynamic shapes
    if layer.moves or not layer.works or len(computed) < 2 or re.search("pool", layer.kind, re.IGNORECASE):
        return ""
    if myelin.adds(layer.kind, layer.name):
        return "alone"
    described = json.dumps([layer.name, entry.get("Metadata"), entry.get("Operations"), entry.get("Operation")], default=str)
    return "alone" if re.search(r"(?<![a-z])add(?![a-z])|iPlus|(?<![a-z])k?sum(?![a-z])", described, re.IGNORECASE) else ""


def _tensors(found: object) -> tuple[LayerTensor, ...]:
    return tuple(_tensor(entry) for entry in _list(found) if isinstance(entry, (str, Mapping)))


def _tensor(entry: str | Mapping[str, object]) -> LayerTensor:
    if isinstance(entry, str):
        return LayerTensor(_text(entry))
    fields = {str(key).lower(): value for key, value in entry.items()}
    combined = _text(fields.get("format/datatype"))
    layout = combined if combined != UNKNOWN else _text(fields.get("format"))
    dtype = _type_of(_text(fields.get("datatype")))
    shape = tuple(int(size) for size in _list(fields.get("dimensions")) if _is_number(size))
    return LayerTensor(_text(fields.get("name")), dtype if dtype != UNKNOWN else _type_of(layout), _layout_of(layout), shape)


def _type_of(text: str) -> str:
    """The type that a text names; for dynamic shapes the inspector writes N/A."""
    return next((dtype for pattern, dtype in _TYPES if re.search(pattern, text, re.IGNORECASE)), UNKNOWN)


def _type_of_tactic(tactic: str) -> str:
    text = re.sub(r"0x[0-9a-f]+", "", tactic.lower()).replace("_", " ")  # a hash may hold "bf16"
    return next((dtype for pattern, dtype in (*_TYPES, *_INSTRUCTIONS) if re.search(pattern, text)), UNKNOWN)


def _layout_of(text: str) -> str:
    lowered = text.lower()
    if match := re.match(r"\(n?(hwc|chw|linear|transposed)\)", lowered):  # Myelin's: "(NHWC) Channel major format"
        return match[1].upper() if match[1] in ("hwc", "chw") else match[1]
    if match := re.search(r"\(k([a-z]+\d*)\)|^k?((?:linear|d?hwc|c?d?chw)\d*)$", lowered):
        name = (match[1] or match[2]).upper()
        return "linear" if name == "LINEAR" else name
    if match := re.search(r"(thirty-two|sixteen|eight|four|two) wide channel", lowered):
        return _WIDE[match[1]]
    if match := re.search(r"channel major.*channel % (\d+)", lowered):
        return f"HWC{match[1]}"
    if lowered.startswith("row major"):
        return "linear"
    return UNKNOWN if lowered.startswith("n/a") else text


def _first_type(tensors: tuple[LayerTensor, ...]) -> str:
    return next((tensor.dtype for tensor in tensors if tensor.dtype != UNKNOWN), UNKNOWN)


def _list(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def _text(found: object) -> str:
    """A text on one line; UNKNOWN for an empty one and for anything else."""
    return " ".join(found.split()) or UNKNOWN if isinstance(found, str) else UNKNOWN


def _is_number(found: object) -> TypeGuard[int | float]:
    return isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) < _LARGEST
