"""An artifact's model card, in Markdown: what the manifest says, for people. Knows no files and measures nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge_resnet.artifact.schema import ForeignSpec, Manifest
from edge_resnet.core.records import Preprocess
from edge_resnet.core.text import printable

__all__ = ["described", "described_steps", "model_card"]

_NOT_MEASURED = "Not measured when this artifact was made: `edge-resnet eval --data FOLDER` measures it on your images."
_LIMITS = (
    "It answers with one of its classes whatever the image shows; an image of anything else gets one of them too.",
    "Its accuracy holds for images like those that it was trained and measured on, prepared as above.",
)


def model_card(manifest: Manifest) -> str:
    """The card of the artifact that the manifest describes: network, weights, preprocessing, calibration, accuracy, limits."""
    model = manifest.model
    parts = {
        "": [f"A {model.name} for {model.classes} classes in {manifest.precision.upper()}, made by edge-resnet for inference."],
        "Weights": list(_weights(manifest)),
        "Preprocessing": [described(manifest), "Images are RGB, 8 bits per channel; the graph normalises them itself."],
        "Calibration": list(_calibration(manifest)),
        "Accuracy": list(_accuracy(manifest)),
        "Confidence": list(_confidence(manifest)),
        "Limits": [f"- {line}" for line in (*_LIMITS, *(f"The build warned: {warning}" for warning in manifest.warnings))],
    }
    texts = [f"# {model.name}, {manifest.precision}"]
    for title, lines in parts.items():
        gap = "\n" if title == "Limits" else "\n\n"
        texts += [f"## {title}"] if title else []
        texts.append(gap.join(_plain(line) for line in lines))
    return "\n\n".join(texts) + "\n"


def described(manifest: Manifest) -> str:
    """The preprocessing in a line, and who says so."""
    return described_steps(manifest.preprocess, manifest.origin.preprocessing if manifest.origin is not None else "")


def described_steps(images: Preprocess, said: str = "") -> str:
    """Preprocessing in a line; ``said``: who says so."""
    mean, std = ("/".join(f"{value:.4g}" for value in values) for values in (images.mean, images.std))
    steps = f"resize {images.resize} ({images.interpolation}), crop {images.crop}, mean {mean}, std {std}"
    return f"{steps}; from {said}" if said else steps


def _weights(manifest: Manifest) -> Iterator[str]:
    origin = manifest.origin
    yield f"{manifest.model.weights}" if origin is None else f"{origin.address} ({manifest.model.weights})"
    if origin is not None and origin.license:
        yield f"Their repository states the license {origin.license}. It goes with them into this artifact."
    else:
        yield "Their license is not recorded here; it goes with them into this artifact."
    if isinstance(manifest.model, ForeignSpec):
        yield "The network came as ONNX and was verified against that file."
        yield from (f"Changed: {change}." for change in manifest.model.changes)


def _calibration(manifest: Manifest) -> Iterator[str]:
    recipe = manifest.recipe
    if recipe is None:
        yield f"None: {manifest.precision} needs no ranges."
        return
    yield f"{manifest.calibration}; method {recipe.method}, correction {recipe.correction}."
    if recipe.keep_high_precision:
        yield f"In high precision: {', '.join(recipe.keep_high_precision)}."


def _accuracy(manifest: Manifest) -> Iterator[str]:
    budget, accuracy = manifest.budget, manifest.accuracy
    if budget is not None:
        low, high = budget.drop_ci95
        yield (
            f"On {budget.images} labelled images: FP32 {budget.fp32_top1:.2f} %, INT8 {budget.int8_top1:.2f} % top-1; drop "
            f"{budget.drop:.2f} points, 95 % interval {low:.2f} to {high:.2f} (McNemar p = {budget.mcnemar_p:.2g})."
        )
    elif accuracy:
        yield "; ".join(f"{name.replace('_', ' ')} {value:.2f} %" for name, value in accuracy.items()) + "; no interval was kept."
    else:
        yield _NOT_MEASURED


def _confidence(manifest: Manifest) -> Iterator[str]:
    rule = manifest.confidence
    if rule is None:
        yield "The probabilities are those of the softmax, and were not compared with how often the answers are right."
        return
    computed = {"int8-cpu": "INT8 as CPUs compute it", "int8-tensorrt": "INT8 as TensorRT computes it"}
    yield (
        f"Logits are divided by the temperature {rule.temperature:.4g}, and an answer with a probability below "
        f"{rule.threshold:.4g} is `unknown`: at most {rule.max_wrong:g} % of the others are to be wrong. Found on {rule.images} "
        f"labelled images ({rule.data}), {computed.get(rule.computation, rule.computation.upper())}, on {rule.backend}: "
        f"{rule.answered} are answered, {rule.wrong} of them wrongly (upper 95 % bound {rule.wrong_bound:.2f} %); on "
        f"images that the rule was not found on, {rule.held_out_wrong} of {rule.held_out_answered}."
    )
    yield "That holds for frames like those images; an image of none of the classes may still get a confident answer."


def _plain(text: str) -> str:
    """Text from outside without control characters, and without Markdown's links, images and HTML."""
    return re.sub(r"([\[\]<>])", r"\\\1", printable(text))
