"""Corrections: what calibration learned beyond ranges (weights on their int8 grid, biases), and the FP32 graph with them.

An artifact's ``corrections.npz`` holds this record: ``integers/NODE``, ``scales/NODE``, ``floats/NODE``, ``biases/NODE``,
``exact_input``. Also reads the graph, and moves the padding of the first convolution in front of it, for an exact input. Does
not know how corrections are learned.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from edge_resnet.artifact.folder import CORRECTIONS, Artifact
from edge_resnet.core.errors import ArtifactError, CalibrationError

__all__ = [
    "EXACT_AMAX",
    "SHIFTED",
    "Corrections",
    "apply",
    "load_corrections",
    "read_corrections",
    "read_graph",
    "with_exact_input",
    "write_corrections",
]

Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int8]

#: The tensor that holds pixel - 128, and its amax: a step of int8 is then one pixel value.
SHIFTED, EXACT_AMAX = "shift", 127.0
_HINT = "build the artifact again"
_KINDS = ("integers", "scales", "floats", "biases")
#: What zipfile and numpy raise for a damaged file; NotImplementedError for a method or a version of zip that they do not know.
_UNREADABLE = (
    OSError, KeyError, ValueError, TypeError, EOFError, OverflowError, MemoryError, RuntimeError, SyntaxError,
    tokenize.TokenError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Corrections:
    """By node name: ``integers`` (O, ...) int8 and ``scales`` (O,) float32 of quantized weights, ``floats`` weights of nodes that
    stay in high precision, ``biases`` (O,). Other nodes are not changed. ``exact_input``: the graph is that of
    ``with_exact_input``."""

    integers: Mapping[str, Integers] = field(default_factory=dict)
    scales: Mapping[str, Floats] = field(default_factory=dict)
    floats: Mapping[str, Floats] = field(default_factory=dict)
    biases: Mapping[str, Floats] = field(default_factory=dict)
    exact_input: bool = False


def with_exact_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes the same function, but pads the image and shifts it to pixel - 128 before the first convolution.

    Sub(mean), Mul(scale), Conv(pads) become Sub(mean), Pad, Sub(128 - mean), Conv: the scale moves into the weights, the shift
    into the bias. Raises CalibrationError if the graph does not begin with these nodes.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    subtract, multiply, convolve = _beginning(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    mean = numpy_helper.to_array(constants[subtract.input[1]]).astype(np.float64).reshape(1, -1, 1, 1)
    scale = numpy_helper.to_array(constants[multiply.input[1]]).astype(np.float64).reshape(1, -1, 1, 1)
    weight = numpy_helper.to_array(constants[convolve.input[1]]).astype(np.float64) * scale
    bias = (weight * (128 - mean)).sum(axis=(1, 2, 3))
    if len(convolve.input) > 2:
        bias += numpy_helper.to_array(constants[convolve.input[2]])
    pads = next(attribute for attribute in convolve.attribute if attribute.name == "pads")
    top, left, bottom, right = pads.ints
    pads.ints[:] = [0, 0, 0, 0]
    new = {
        convolve.input[1]: weight.astype(np.float32),
        f"{convolve.name}.bias": bias.astype(np.float32),
        "pad.size": np.array([0, 0, top, left, 0, 0, bottom, right], np.int64),
        "shift.weight": (128 - mean).astype(np.float32),
    }
    kept = [tensor for tensor in graph.initializer if tensor.name not in {*new, multiply.input[1]}]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(value, name) for name, value in new.items())])
    convolve.input[:] = [SHIFTED, convolve.input[1], f"{convolve.name}.bias"]
    place = list(graph.node).index(multiply)
    graph.node.remove(multiply)
    graph.node.insert(place, helper.make_node("Pad", [subtract.output[0], "pad.size"], ["pad"], name="pad"))
    graph.node.insert(place + 1, helper.make_node("Sub", ["pad", "shift.weight"], [SHIFTED], name=SHIFTED))
    return changed


def _beginning(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]:
    """The nodes that normalise and the first convolution."""
    first = next((place for place, node in enumerate(graph.node) if node.op_type == "Conv"), 0)
    before = list(graph.node)[max(0, first - 2) : first + 1]
    if [node.op_type for node in before] != ["Sub", "Mul", "Conv"]:
        raise CalibrationError("the graph does not begin with Sub, Mul, Conv", hint="leave exact_input out of the recipe")
    subtract, multiply, convolve = before
    return subtract, multiply, convolve


def apply(model: onnx.ModelProto, corrections: Corrections | None) -> onnx.ModelProto:
    """The FP32 graph with the corrections; ``model`` is not changed, and is returned where there is nothing to correct.

    Raises CalibrationError if the graph lacks a node of the corrections, or has another shape there.
    """
    if corrections is None or not (corrections.exact_input or corrections.integers or corrections.floats or corrections.biases):
        return model
    if corrections.exact_input:
        corrected = with_exact_input(model)
    else:
        corrected = onnx.ModelProto()
        corrected.CopyFrom(model)
    nodes = {node.name: node for node in corrected.graph.node}
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    for name in {*corrections.integers, *corrections.floats, *corrections.biases}:
        if name not in nodes or len(nodes[name].input) < 2 or nodes[name].input[1] not in constants:
            raise CalibrationError(f"the corrections belong to another graph: it has no weights in {name}", hint=_HINT)
    for name, weight in _weights(corrections).items():
        _replace(constants[nodes[name].input[1]], weight, name)
    for name, bias in corrections.biases.items():
        node = nodes[name]
        if len(node.input) > 2:
            _replace(constants[node.input[2]], bias, name)
        else:
            if len(bias) != constants[node.input[1]].dims[0]:
                raise CalibrationError(f"the corrections belong to another graph: {len(bias)} biases in {name}", hint=_HINT)
            corrected.graph.initializer.append(numpy_helper.from_array(bias, f"{name}.bias"))
            node.input.append(f"{name}.bias")
    return corrected


def read_corrections(artifact: Artifact) -> Corrections | None:
    """The artifact's corrections; None if it has none. Raises ArtifactError if the file is damaged."""
    if CORRECTIONS not in artifact.manifest.files:
        return None
    return load_corrections(artifact.folder / CORRECTIONS)


def read_graph(artifact: Artifact) -> onnx.ModelProto:
    """The artifact's FP32 graph, checked. Raises ArtifactError if onnx does not accept it; other files are never read for it."""
    path = artifact.model_path
    try:
        graph = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(graph)
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"{path} is no ONNX graph: {reason[0]}", hint=_HINT) from error
    return graph


def load_corrections(path: Path) -> Corrections:
    """Read the record from a file. Raises ArtifactError if the file holds none: also for values that are not finite.

    The arrays must lie in it as ``write_corrections`` stores them, uncompressed: so they cannot be larger than the file.
    """
    parts: dict[str, dict[str, npt.NDArray[np.generic]]] = {kind: {} for kind in _KINDS}
    try:
        arrays = _read_arrays(path)
        exact = arrays.pop("exact_input.npy")
        if exact.shape != () or exact.dtype != np.bool_:
            raise ValueError("exact_input is not one truth value")
        for name, array in arrays.items():
            kind, _, node = name.removesuffix(".npy").partition("/")
            if kind not in parts:
                raise ValueError(f"it holds {name[:100]!a}")
            parts[kind][node] = array.astype(np.int8 if kind == "integers" else np.float32, casting="safe")
        _check_arrays(parts)
    except _UNREADABLE as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ArtifactError(f"{path} holds no corrections: {reason}", hint=_HINT) from error
    return Corrections(**parts, exact_input=bool(exact))  # type: ignore[arg-type]  # each part was cast to its dtype


def _read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Name → array of an uncompressed .npz, every size checked before memory is taken. Raises what ``_UNREADABLE`` lists."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its arrays are larger than the file")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise ValueError(f"{entry.filename[:100]!a} is compressed or encrypted")
            with archive.open(entry) as file:
                arrays[entry.filename] = _read_array(file)
    return arrays


def _read_array(file: IO[bytes]) -> npt.NDArray[np.generic]:
    """One array in numpy's format (NEP 1), which must have exactly the bytes that its header announces."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    content = file.read()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError("an array has another size than its header says")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _check_arrays(parts: Mapping[str, Mapping[str, npt.NDArray[np.generic]]]) -> None:
    """Raise ValueError unless every array has the shape of weights, scales or biases, and finite values."""
    if parts["integers"].keys() != parts["scales"].keys():
        raise ValueError("integers without their scales")
    for node, integers in parts["integers"].items():
        if integers.ndim not in (2, 4) or parts["scales"][node].shape != integers.shape[:1]:
            raise ValueError(f"{node[:100]!a} has scales of another length than its weights")
    for kind, ranks in (("scales", (1,)), ("floats", (2, 4)), ("biases", (1,))):
        for node, values in parts[kind].items():
            if values.ndim not in ranks or not values.size:
                raise ValueError(f"{kind} of {node[:100]!a} have the shape {values.shape}")
            if not np.isfinite(values.astype(np.float32)).all():
                raise ValueError(f"{kind} of {node[:100]!a} are not finite numbers")
    if any(bool((scales.astype(np.float32) <= 0).any()) for scales in parts["scales"].values()):
        raise ValueError("a scale is not positive")


def write_corrections(path: Path, corrections: Corrections) -> None:
    """Write the record; the same record gives the same bytes."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"exact_input": np.array(corrections.exact_input)}
    for kind in _KINDS:
        arrays.update({f"{kind}/{node}": value for node, value in sorted(getattr(corrections, kind).items())})
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types the keywords as its own flag


def _weights(corrections: Corrections) -> dict[str, Floats]:
    """Every replaced weight as float32; integers are multiplied by their scales."""
    on_grid = {
        name: integers * corrections.scales[name].reshape(-1, *[1] * (integers.ndim - 1))
        for name, integers in corrections.integers.items()
    }
    return {**on_grid, **corrections.floats}


def _replace(tensor: onnx.TensorProto, value: Floats, node: str) -> None:
    if tuple(tensor.dims) != value.shape:
        message = f"the corrections belong to another graph: {node} has {tuple(tensor.dims)}, not {value.shape}"
        raise CalibrationError(message, hint=_HINT)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32), tensor.name))
