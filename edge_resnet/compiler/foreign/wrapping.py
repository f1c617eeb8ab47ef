"""An ONNX model of a stranger → the graph of an artifact: uint8 images in, logits out, normalisation inside, any batch, opset 17.

Knows the order of the steps, and verifies the result against the model as it was. Knows no torch and no artifact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.artifact.graphcheck import INPUT, OPERATORS, OPSET, OUTPUT
from edge_resnet.compiler.foreign.affine import fold_affine, fold_normalisation
from edge_resnet.compiler.foreign.draft import Draft, named
from edge_resnet.compiler.foreign.folding import fold_constants
from edge_resnet.compiler.foreign.head import find_logits
from edge_resnet.compiler.foreign.naming import rename
from edge_resnet.compiler.foreign.opset import convert_opset
from edge_resnet.compiler.foreign.reading import OnnxImage, image_input
from edge_resnet.compiler.foreign.rewriting import dissolve, rewrite
from edge_resnet.core.errors import BackendError, ConfigError, ExportError, WeightsError
from edge_resnet.core.records import Preprocess
from edge_resnet.core.text import printable
from edge_resnet.runtime.agreement import largest_difference
from edge_resnet.runtime.onnxruntime import open_session

__all__ = ["Wrapped", "input_size", "verify_wrapped", "wrap"]

#: How far the sum of an image's outputs may lie from 1 where they are probabilities.
_SUM = 1e-4


@dataclass(frozen=True, eq=False)
class Wrapped:
    """``graph``: as an artifact holds it. ``preprocess``: what it does to images, also where the original did part of it.

    ``changes``: a line for each thing that a user should know. ``original``: the model as it was, whose tensor ``logits`` is
    compared, with images normalised by ``given``; ``image``: its input.
    """

    graph: onnx.ModelProto
    preprocess: Preprocess
    classes: int
    changes: tuple[str, ...]
    original: onnx.ModelProto
    image: OnnxImage
    logits: str
    given: Preprocess


def input_size(image: OnnxImage, asked: int | None, where: str) -> int:
    """The side of the square image in pixels: the graph's, or the one asked for where any will do.

    Raises ConfigError where nobody says it, where both do and differ, and for an image that is not square.
    """
    sides = {side for side in (image.height, image.width) if side is not None}
    if len(sides) > 1:
        raise ConfigError(
            f"{where} takes images of {image.width} x {image.height} pixels",
            hint="edge-resnet crops squares: export it for a square",
        )
    fixed = sides.pop() if sides else None
    if fixed is None and asked is None:
        raise ConfigError(
            f"{where} takes images of any height", hint="edge-resnet build --input-size 224 says which side, in pixels"
        )
    if fixed is not None and asked not in (None, fixed):
        hint = f"leave the input size out, or export it for {asked} pixels"
        raise ConfigError(f"{where} takes images of {fixed} pixels, not {asked}", hint=hint)
    return fixed if fixed is not None else asked or 0


def wrap(model: onnx.ModelProto, preprocess: Preprocess, where: str) -> Wrapped:
    """Wrap a model that ``read_onnx`` returned; it is not changed. ``where``: what messages name.

    ``preprocess``: what happens to an image before the model's input. Raises WeightsError that names the node which cannot be
    wrapped.
    """
    image = image_input(model, where)
    draft = Draft.of(model, image.name, (1, 3, preprocess.crop, preprocess.crop))
    try:
        fold_constants(draft)
        dissolve(draft)
        logits = find_logits(draft)
        rewrite(draft)
        fold_affine(draft)
        convert_opset(draft)
        fold_constants(draft)
        _refuse_unknown(draft)
        classes = draft.shapes()[draft.output][1]
        own = fold_normalisation(draft, preprocess)
        if not any(node.op_type in ("Conv", "Gemm") for node in draft.nodes):
            raise WeightsError("it has no layer with weights", hint="export a classifier of images")
        rename(draft)
        graph = _finished(draft, own, classes)
    except WeightsError as error:
        raise WeightsError(printable(f"{where}: {error.message}"), hint=error.hint) from error
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, IndexError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(printable(f"{where} contradicts itself: {reason}"), hint="export the network again") from error
    return Wrapped(graph, own, classes, tuple(draft.changes), model, image, logits, preprocess)


def verify_wrapped(wrapped: Wrapped, pixels: npt.NDArray[np.uint8]) -> float:
    """Compare with the original in ONNX Runtime at batch 1, 2 and 5 on ``pixels`` (≥ 5, H, W, 3) uint8 RGB.

    An original that takes one image gets them one by one. Returns the largest absolute difference of a logit. Raises ExportError
    where they differ or the graph holds for one image alone, WeightsError where the original does not run or gives probabilities.
    """
    original = onnx.ModelProto()
    original.CopyFrom(wrapped.original)
    del original.graph.output[:]
    original.graph.output.append(onnx.ValueInfoProto(name=wrapped.logits))
    try:
        session = open_session(original.SerializeToString())
    except BackendError as error:
        raise WeightsError(error.message, hint="export it with opset_version=17") from error
    mean, scale = _normalisation(wrapped.given)

    def originals(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        normalised = (images.transpose(0, 3, 1, 2).astype(np.float32) - mean) * scale
        parts = [normalised] if wrapped.image.batch is None else [normalised[[index]] for index in range(len(normalised))]
        try:
            found = [session.run([wrapped.logits], {wrapped.image.name: part})[0] for part in parts]
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            fault = f"the original does not run on {len(parts[0])} images: {_first_line(error)}"
            raise WeightsError(printable(fault), hint="export it with a dynamic batch, or for one image") from error
        logits: npt.NDArray[np.float32] = np.concatenate(found).reshape(len(images), -1)
        if (logits >= 0).all() and np.abs(logits.sum(axis=1) - 1).max() < _SUM:
            hint = "export the logits: the network without its softmax"
            raise WeightsError("the outputs are probabilities already, and the softmax is not the last node", hint=hint)
        return logits

    try:
        return largest_difference(wrapped.graph.SerializeToString(), pixels, originals, "the original")
    except (ExportError, WeightsError):
        raise
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        fault = f"the network cannot be given a batch of several images: {_first_line(error)}"
        raise ExportError(printable(fault), hint="export it with a dynamic batch") from error


def _refuse_unknown(draft: Draft) -> None:
    for node in draft.nodes:
        if node.op_type not in OPERATORS:
            hint = "it computes with shapes that are not known before the image; export it for a fixed size"
            raise WeightsError(f"node {named(node)} is an operator that edge-resnet does not build", hint=hint)


def _normalisation(preprocess: Preprocess) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What is subtracted from a pixel's value, and what the difference is multiplied by; (1, 3, 1, 1) each."""
    mean = np.array(preprocess.mean, np.float64) * 255
    scale = 1 / (np.array(preprocess.std, np.float64) * 255)
    return mean.astype(np.float32).reshape(1, 3, 1, 1), scale.astype(np.float32).reshape(1, 3, 1, 1)


def _finished(draft: Draft, preprocess: Preprocess, classes: int) -> onnx.ModelProto:
    """The draft with uint8 images in front, for any batch. The Cast comes first: TensorRT 8.6 takes no other UINT8 tensor."""
    mean, scale = _normalisation(preprocess)
    front = [
        helper.make_node("Cast", [INPUT], ["cast"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["transpose"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["transpose", "sub.weight"], ["sub"], name="sub"),
        helper.make_node("Mul", ["sub", "mul.weight"], ["mul"], name="mul"),
    ]
    draft.redirect(draft.input, "mul")
    for node in draft.nodes:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == draft.output else name for name in names]
    constants = {"sub.weight": mean, "mul.weight": scale, **draft.constants}
    side = preprocess.crop
    graph = helper.make_graph(
        [*front, *draft.nodes],
        "network",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", side, side, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="edge-resnet")
    onnx.checker.check_model(model, full_check=True)
    return model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
