"""Warnings about layers and calibration sets that post-training quantization does not handle well. One line each, never an error.

The thresholds lie between networks and sets that quantize well and ones broken on purpose: docs/decisions/2026-11-warnings.md.
Does not know about files, and runs no network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import SHIFTED
from edge_resnet.core.records import Preprocess
from edge_resnet.core.statistics import wilson_interval
from edge_resnet.images.checks import ImageStats, normalised, repeated
from edge_resnet.images.imageset import ImageSet
from edge_resnet.quantization.histogram import AbsHistogram, clipped_energy, median_nonzero, point, share_above

__all__ = ["Risk", "check_answers", "check_normalisation", "check_set", "check_unlike", "risk_warning", "risky_layers"]

#: Median nonzero value of a layer's input in steps of int8: at least 5.1 on four networks that quantize well, 2.5 with method
#: max, which costs ResNet-50 six points. With the next two it finds 195 of 199 rescaled copies whose agreement fell.
_MIN_STEPS = 2.2
#: Median weight of the typical output channel in steps: at least 5.4 on the four.
_MIN_WEIGHT_STEPS = 3.5
#: Share of the values that become zero, ReLU's own included: at most 0.83 on the four. A sparser network alone is no fault, so
#: there must also be an output channel far above the median one: at most 9.7 times on the four.
_MAX_ZEROS, _MAX_SPREAD = 0.9, 30.0
#: Energy that clipping removes from a tensor: at most 0.002 on the four with every method but percentile 99.9, which removes
#: 0.012 on ResNet-18 and costs 7 points there.
_MAX_CLIPPED = 0.01
#: Mean over the tensors of |log(99.9 % point of one set / of the other)|: at most 0.03 between large sets of a kind, 0.08 with 8
#: to 32 images; 0.03 to 0.08 for swapped or grey colours, which cost nothing; 0.1 to 0.2 for half the brightness.
_MAX_UNLIKE = 0.10
#: Share of the values above all of the other set's: at most 0.002 between sets of a kind, at least 0.045 if it costs points.
_MAX_BEYOND = 0.005
#: Sets below these sizes are small, and far too small.
_FEW, _FEWER = 128, 32
#: Shares of the sampled images that may repeat another one, and that may be flat.
_MAX_ODD = 0.25
#: Mean and deviation of normalised pixels: with the right normalisation 0 to 0.2 and 1.1 to 1.2, with ImageNet's deviation and
#: no mean 2.1, with ImageNet's mean and no deviation 0.25.
_MAX_MEAN, _MIN_DEVIATION, _MAX_DEVIATION = 2.0, 0.3, 4.0
#: Share of all answers that one class may have in a mixed set.
_MAX_ONE_SIDED = 0.9
#: Entropy of the answers over that of a guess: at most 0.2 on images of a network's own kind, 0.5 on another kind. Of eight
#: untrained networks four lie above this, the others above the share before.
_MAX_UNSURE = 0.7
#: Answers needed for a verdict.
_MIN_ANSWERS = 16


@dataclass(frozen=True)
class Risk:
    """A layer that plain ranges may not serve well.

    ``value``: how many times past the limit it is. ``why``: the reason with its figure, for people.
    """

    node: str
    value: float
    why: str


def risky_layers(model: onnx.ModelProto, histograms: Mapping[str, AbsHistogram], table: CalibrationTable) -> list[Risk]:
    """Layers whose input leaves most values few of int8's steps, or is clipped, or whose weights lie far apart; the worst first.

    ``model``: the graph that the histograms were counted on. Nodes that the table's recipe keeps in high precision are skipped,
    and so are tensors that only Adds read: their error counts relative to the sum.
    """
    graph = _Graph(model, frozenset(table.recipe.keep_high_precision))
    found: list[Risk] = []
    for tensor, histogram in histograms.items():
        reader = graph.reader(tensor)
        if reader is not None and tensor in table.amax and histogram.limit > 0:
            found += _tensor_risks(graph, reader, tensor, histogram, table.amax[tensor])
    for node in graph.convolutions:
        steps = _weight_steps(graph.weight(node))
        if steps < _MIN_WEIGHT_STEPS:
            why = f"half of its weights lie below {steps:.1f} of int8's 127 steps, input channels differ too much"
            found.append(Risk(node.name, _MIN_WEIGHT_STEPS / steps, why))
    return sorted(found, key=lambda risk: -risk.value)


def risk_warning(risks: Sequence[Risk], shown: int = 3) -> list[str]:
    """One line that names the worst layers, each with its worst risk, and counts the others; an empty list if there are none."""
    if not risks:
        return []
    worst_of: dict[str, Risk] = {}
    for risk in sorted(risks, key=lambda risk: -risk.value):
        worst_of.setdefault(risk.node, risk)
    worst = "; ".join(f"{risk.node}: {risk.why}" for risk in list(worst_of.values())[:shown])
    others = len(worst_of) - shown
    more = f"; and {others} more layer{'s' if others > 1 else ''}" if others > 0 else ""
    return [f"risky with plain ranges: {worst}{more}; check with eval --simulate-int8, or set a budget with --max-drop"]


def check_set(images: ImageSet, stats: Sequence[ImageStats], classes: int) -> list[str]:
    """Warnings about a set that is small, of one class or few, repeated, or flat. ``stats``: of a sample of its images."""
    found = []
    if len(images) < _FEW:
        how = "far too few" if len(images) < _FEWER else "few"
        found.append(f"{len(images)} calibration images are {how}: ranges and corrections need {_FEW} to 512")
    if images.labels is not None and len(images) > 1:
        present = len(set(images.labels))
        if present == 1:
            found.append("all calibration images are of one class: mix classes as they occur at run time")
        elif present < min(10, classes / 3):
            found.append(f"the calibration images are of {present} of {classes} classes: add images of more classes")
    again, flat = repeated(stats), sum(one.flat for one in stats)
    of_all = f"of {len(stats)} sampled calibration images"
    if again > _MAX_ODD * len(stats):
        found.append(f"{again} {of_all} repeat another one, or nearly (frames of one video?): they add nothing")
    if flat > _MAX_ODD * len(stats):
        found.append(f"{flat} {of_all} are of nearly one colour: is the lens covered?")
    return found


def check_normalisation(stats: Sequence[ImageStats], spec: Preprocess) -> list[str]:
    """A warning if mean and deviation of the pixels, preprocessed and normalised by ``spec``, are far from 0 and 1."""
    if not stats:
        return []
    mean, deviation = normalised(stats, spec)
    usual = deviation.min() >= _MIN_DEVIATION and deviation.max() <= _MAX_DEVIATION
    if usual and np.abs(mean).max() <= _MAX_MEAN:
        return []
    figures = f"mean {', '.join(f'{m:.2f}' for m in mean)} and deviation {', '.join(f'{d:.2f}' for d in deviation)}"
    return [f"normalised calibration images have {figures}, 0 and 1 are usual: are --mean, --std and the exposure right?"]


def check_answers(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64] | None) -> list[str]:
    """A warning if FP32 itself answers near chance, with one class for all images, or unsurely: its input is probably wrong.

    ``logits``: (N, classes). ``labels``: (N,), None if they are not known. Fewer than 16 images give no warning.
    """
    count, classes = logits.shape
    if count < _MIN_ANSWERS:
        return []
    best = logits.argmax(axis=1)
    if labels is not None:
        hits = int((best == labels).sum())
        if wilson_interval(hits, count)[0] < 2 / classes and hits < 0.5 * count:
            finding = f"FP32 itself is right on {hits} of {count} calibration images, hardly more than chance"
            return [f"{finding}: do mean, std, the order of the labels and the weights belong to this network?"]
    share = float(np.bincount(best, minlength=classes).max()) / count
    several = labels is None or len(set(labels.tolist())) > 1
    if share > _MAX_ONE_SIDED and several:
        return [f"FP32 assigns {100 * share:.0f} % of the calibration images to one class: are mean, std and the weights right?"]
    unsure = _unsureness(logits)
    if unsure > _MAX_UNSURE:
        finding = f"FP32 is {100 * unsure:.0f} % as unsure about the calibration images as a guess"
        return [f"{finding}: are the weights trained, and are these images of the kind that the network was trained on?"]
    return []


def check_unlike(calibration: Mapping[str, AbsHistogram], validation: Mapping[str, AbsHistogram]) -> list[str]:
    """Warnings about calibration images unlike the validation images: values beyond the ranges, and distant 99.9 % points.

    Meant for at least 16 images in each set.
    """
    shared = [name for name in calibration if name in validation and calibration[name].amax > 0 and validation[name].amax > 0]
    if not shared:
        return []
    found = []
    # The range of an exact input is set by the format, not by the images.
    beyond = {name: share_above(validation[name], calibration[name].amax) for name in shared if name != SHIFTED}
    worst = max(beyond, key=beyond.__getitem__, default="")
    if beyond and beyond[worst] > _MAX_BEYOND:
        finding = f"{100 * beyond[worst]:.1f} % of the validation values of {worst} lie above all calibration values"
        found.append(f"{finding} and are clipped: calibrate on images as bright and as rich in contrast")
    ratios = [point(validation[name], 0.999) / point(calibration[name], 0.999) for name in shared]
    distance = float(np.mean(np.abs(np.log(ratios))))
    if distance > _MAX_UNLIKE:
        how = f"{'wider' if float(np.median(ratios)) > 1 else 'narrower'} by a factor of {math.exp(distance):.2f} on average"
        remedy = "calibrate on images of the same camera, light and crop"
        found.append(f"the validation images are unlike the calibration images (activations are {how}): {remedy}")
    return found


class _Graph:
    """The nodes that write and read a tensor, and the convolutions that are quantized."""

    def __init__(self, model: onnx.ModelProto, keep: frozenset[str]) -> None:
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._writers = {output: node for node in model.graph.node for output in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._keep = keep
        for node in model.graph.node:
            for tensor in node.input:
                self._readers.setdefault(tensor, []).append(node)
        weighted = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in self._constants]
        self.convolutions = [node for node in weighted if node.name not in keep]

    def weight(self, node: onnx.NodeProto) -> npt.NDArray[np.float32]:
        """The weights of a convolution, (O, I, H, W)."""
        return np.asarray(numpy_helper.to_array(self._constants[node.input[1]]), np.float32)

    def reader(self, tensor: str) -> str | None:
        """The first layer that reads the tensor quantized and is affected by its error; None if there is none."""
        readers = [node.name for node in self._readers.get(tensor, []) if node.op_type != "Add" and node.name not in self._keep]
        return readers[0] if readers else None

    def widest(self, tensor: str) -> tuple[float, str]:
        """Largest over median output channel of the convolutions that sum up to ``tensor``, and the name of that convolution."""
        open_ends, seen, found = [tensor], set[str](), [(1.0, "")]
        while open_ends:
            node = self._writers.get(open_ends.pop())
            if node is None or node.name in seen:
                continue
            seen.add(node.name)
            if node.op_type != "Conv":
                open_ends += node.input
            elif node.input[1] in self._constants:
                found.append((_spread(self.weight(node)), node.name))
        return max(found)


def _tensor_risks(graph: _Graph, reader: str, tensor: str, histogram: AbsHistogram, amax: float) -> Iterator[Risk]:
    steps = median_nonzero(histogram) * 127 / amax
    zeros = 1 - share_above(histogram, amax / 254)
    if steps < _MIN_STEPS:
        why = f"half of the nonzero values of its input {tensor} lie below {steps:.1f} of int8's 127 steps"
        yield Risk(reader, _MIN_STEPS / steps, why)
    elif zeros > _MAX_ZEROS:
        # Beyond a factor of a few hundred the small values share the first bin with ReLU's zeros, and the median misses them.
        spread, convolution = graph.widest(tensor)
        if spread > _MAX_SPREAD:
            beside = f"beside a channel of {convolution} {spread:.0f} times the median one"
            yield Risk(reader, spread / _MAX_SPREAD, f"{100 * zeros:.1f} % of its input {tensor} become zero {beside}")
    clipped = clipped_energy(histogram, amax)
    if clipped > _MAX_CLIPPED:
        yield Risk(reader, clipped / _MAX_CLIPPED, f"clipping removes {100 * clipped:.0f} % of the energy of its input {tensor}")


def _weight_steps(weight: npt.NDArray[np.float32]) -> float:
    """Median absolute weight of the median channel, in steps of that channel; zero weights are exact and do not count."""
    flat = np.abs(weight.reshape(len(weight), -1).astype(np.float64))
    ranges = flat.max(axis=1)
    alive = ranges > 1e-8 * ranges.max()
    if not alive.any():
        return 127.0
    flat[flat == 0] = np.nan
    return float(np.median(np.nanmedian(flat[alive], axis=1) / ranges[alive])) * 127


def _spread(weight: npt.NDArray[np.float32]) -> float:
    """Largest over median norm of the output channels that are not dead."""
    norms = np.linalg.norm(weight.reshape(len(weight), -1).astype(np.float64), axis=1)
    alive = norms[norms > 1e-8 * norms.max()]
    return float(alive.max() / np.median(alive)) if len(alive) else 1.0


def _unsureness(logits: npt.NDArray[np.float32]) -> float:
    """Mean entropy of the softmax, relative to that of equal probabilities."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    shares = np.exp(shifted)
    total = shares.sum(axis=1, keepdims=True)
    entropy = np.log(total[:, 0]) - (shares * shifted).sum(axis=1) / total[:, 0]
    return float(entropy.mean()) / math.log(logits.shape[1])
