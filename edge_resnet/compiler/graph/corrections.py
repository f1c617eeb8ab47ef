"""Corrections: what calibration learned beyond ranges (weights on their int8 grid, biases), and the FP32 graph with them.

An artifact's ``corrections.npz`` holds this record: ``integers/NODE``, ``scales/NODE``, ``floats/NODE``, ``biases/NODE``,
``exact_input``. Also moves the padding of the first convolution in front of it, for an exact input. Does not know how corrections
are learned.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
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
    "with_exact_input",
    "write_corrections",
]

Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int8]

#: The tensor that holds pixel - 128, and its amax: a step of int8 is then one pixel value.
SHIFTED, EXACT_AMAX = "shift", 127.0
_HINT = "build the artifact again"


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
    """The FP32 graph with the corrections; ``model`` is not changed.

    Raises CalibrationError if the graph lacks a node of the corrections, or has another shape there.
    """
    if corrections is None:
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


def load_corrections(path: Path) -> Corrections:
    """Read the record from a file. Raises ArtifactError if the file holds none."""
    parts: dict[str, dict[str, npt.NDArray[np.generic]]] = {kind: {} for kind in ("integers", "scales", "floats", "biases")}
    try:
        with np.load(path, allow_pickle=False) as archive:
            exact = bool(archive["exact_input"])
            for key in archive.files:
                kind, _, node = key.partition("/")
                if node:
                    parts[kind][node] = archive[key].astype(np.int8 if kind == "integers" else np.float32, casting="safe")
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} holds no corrections: {error}", hint=_HINT) from error
    if parts["integers"].keys() != parts["scales"].keys():
        raise ArtifactError(f"{path} holds integers without their scales", hint=_HINT)
    return Corrections(**parts, exact_input=exact)  # type: ignore[arg-type]  # each part was cast to its dtype


def write_corrections(path: Path, corrections: Corrections) -> None:
    """Write the record; the same record gives the same bytes."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"exact_input": np.array(corrections.exact_input)}
    for kind in ("integers", "scales", "floats", "biases"):
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
