"""Whether INT8 answers like FP32 on held-out images; if not, which layers are to blame, what helps, and the warning that says so.

Which layers are to blame is measured by simulation: the risks that ``diagnose`` reads off histograms are about plain ranges,
before anything is corrected. Does not know about graphs, ranges or labels: a function runs the network with some nodes kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.core.records import Progress
from edge_resnet.core.statistics import wilson_interval
from edge_resnet.quantization.simulate import centred_error

__all__ = [
    "BLAME_IMAGES",
    "Agreement",
    "Blame",
    "Disagreement",
    "LayerDamage",
    "agreement_of",
    "blame_layers",
    "unheld_warning",
    "wanted_agreement",
]

#: Images on which one layer's damage is measured: an error of the logits needs far fewer than a share of equal answers.
BLAME_IMAGES = 16
#: Largest share of the layers that are tried in high precision together: with more of them INT8 is hardly worth it.
_MAX_SHARE = 0.5
#: Agreement with FP32 in percent that the default recipes reach on four sound networks, with up to so many classes and with
#: more: 99.3 and more with ten, 97.2 and more with a thousand.
_FEW_CLASSES, _WANTED_FEW, _WANTED_MANY = 100, 99.0, 96.0

#: (N, classes) float32.
Logits: TypeAlias = npt.NDArray[np.float32]
Nodes: TypeAlias = frozenset[str]


@dataclass(frozen=True)
class Agreement:
    """On how many of ``count`` held-out images INT8 gave FP32's class."""

    same: int
    count: int

    @property
    def percent(self) -> float:
        """The share in percent."""
        return 100 * self.same / self.count

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval in percent."""
        low, high = wilson_interval(self.same, self.count)
        return 100 * low, 100 * high

    def falls_short(self, wanted: float) -> bool:
        """Whether even the upper end of the interval lies below ``wanted`` percent: more than the chance of the draw."""
        return self.ci95[1] < wanted


@dataclass(frozen=True)
class LayerDamage:
    """A layer's share, in [0, 1], of the errors that the layers make in the logits when each is quantized alone."""

    node: str
    share: float


@dataclass(frozen=True)
class Blame:
    """All ``layers``, the most harmful first. With those in ``kept`` in high precision the agreement is ``agreement``."""

    layers: tuple[LayerDamage, ...]
    kept: tuple[str, ...]
    agreement: Agreement


@dataclass(frozen=True, eq=False)
class Disagreement:
    """What is measured, and how.

    ``nodes``: names of the quantized nodes, in graph order. ``reference``: (N, classes) FP32's logits of the held-out images.
    ``logits(keep, positions)``: (len(positions), classes) those of the simulated INT8 for the images at these positions, with
    the nodes in ``keep`` in high precision and all others quantized.
    """

    nodes: tuple[str, ...]
    reference: Logits
    logits: Callable[[Nodes, Sequence[int]], Logits]


def blame_layers(problem: Disagreement, wanted: float, *, progress: Progress | None = None) -> Blame:
    """Rank the layers, and find how many from the top in high precision restore ``wanted`` percent agreement with FP32.

    Each layer is quantized alone on up to ``BLAME_IMAGES`` images; its damage is the squared error of the logits, centred per
    image because a shift of all logits changes no answer. All-but-one runs would not do: where many layers are bad, no single
    one helps. Then 1, 2, 4, … layers from the top are kept, up to half of them, on all images, until the agreement is reached;
    the fewest that do are told, else the best. For n layers this takes n short runs and at most log2(n) over all images.
    """
    layers = _ranked(problem, progress)
    names, limit = [layer.node for layer in layers], int(_MAX_SHARE * len(layers))
    counts = [count for count in (2**power for power in range(limit.bit_length())) if count < limit] + [limit] * (limit > 0)
    best: Blame = Blame(layers, (), agreement_of(problem.reference, _all(problem, frozenset())))
    for done, count in enumerate(counts):
        if progress is not None:
            progress("blame: keep", done, len(counts))
        tried = Blame(layers, tuple(names[:count]), agreement_of(problem.reference, _all(problem, frozenset(names[:count]))))
        if tried.agreement.same > best.agreement.same:
            best = tried
        if tried.agreement.percent >= wanted:
            break
    if progress is not None:
        progress("blame: keep", len(counts), len(counts))
    return best


def agreement_of(reference: Logits, logits: Logits) -> Agreement:
    """How many images get the same best class; logits (N, classes) that are not finite count as different."""
    same = (logits.argmax(axis=1) == reference.argmax(axis=1)) & np.isfinite(logits).all(axis=1)
    return Agreement(int(same.sum()), len(reference))


def wanted_agreement(classes: int) -> float:
    """The agreement with FP32, in percent, below which INT8 of a network of so many classes is worse than it should be."""
    return _WANTED_FEW if classes <= _FEW_CLASSES else _WANTED_MANY


def unheld_warning(agreement: Agreement, wanted: float, blame: Blame | None = None, *, quick: str = "") -> list[str]:
    """One line if INT8 gives FP32's class too rarely on images that it was not made with; an empty list if it does not.

    With ``blame`` it names the layers, and the remedy: the fewest layers in high precision that were seen to suffice, else
    training. Without it, or if the interval reaches ``wanted`` percent, it says how to know more. ``quick``: the option of a
    build that left something out, which is then the first remedy.
    """
    if agreement.percent >= wanted:
        return []
    low, high = agreement.ci95
    found = f"INT8 gives FP32's class on {agreement.percent:.1f} % of {agreement.count} held-out images"
    found += f" (95 % interval {low:.1f} to {high:.1f}), {wanted:g} % are usual"
    if not agreement.falls_short(wanted):
        return [f"{found}: too few images to be sure, edge-resnet eval --simulate-int8 measures it on more"]
    if blame is not None:
        found += f"; {_culprits(blame)}; {_effect(blame)}"
    first = f"build without {quick}; else " if quick else ""
    return [f"{found}: {first}{_remedy(blame, wanted)}"]


def _ranked(problem: Disagreement, progress: Progress | None) -> tuple[LayerDamage, ...]:
    """Each layer's share of the damages, the largest first; equal ones in graph order."""
    images = range(min(BLAME_IMAGES, len(problem.reference)))
    everything, reference = frozenset(problem.nodes), problem.reference[: len(images)]
    damages = []
    for done, node in enumerate(problem.nodes):
        if progress is not None:
            progress("blame: rank", done, len(problem.nodes))
        damages.append(centred_error(problem.logits(everything - {node}, images), reference))
    if progress is not None:
        progress("blame: rank", len(problem.nodes), len(problem.nodes))
    total = max(sum(damages), np.finfo(np.float64).tiny)
    found = [LayerDamage(node, damage / total) for node, damage in zip(problem.nodes, damages, strict=True)]
    return tuple(sorted(found, key=lambda layer: -layer.share))


def _all(problem: Disagreement, keep: Nodes) -> Logits:
    return problem.logits(keep, range(len(problem.reference)))


def _culprits(blame: Blame, shown: int = 3) -> str:
    """The fewest layers that make half of the damage; if those are more than ``shown``, the worst of them."""
    made, named = 0.0, []
    for layer in blame.layers[:shown]:
        if made >= 0.5:
            break
        made += layer.share
        named.append(f"{layer.node} ({100 * layer.share:.0f} %)")
    return f"most of the error comes from {', '.join(named)}" if made >= 0.5 else f"the worst layers are {', '.join(named)}"


def _effect(blame: Blame) -> str:
    if not blame.kept:
        return "no layer in high precision helps"
    return f"with {len(blame.kept)} of {len(blame.layers)} layers in high precision it is {blame.agreement.percent:.1f} %"


def _remedy(blame: Blame | None, wanted: float) -> str:
    """Layers in high precision if they were seen to suffice or nothing was tried, and training."""
    if blame is not None and blame.agreement.percent < wanted:
        return "train the weights with edge-resnet train --qat, or use edge-resnet build --fp16"
    return "--max-drop keeps such layers in high precision, edge-resnet train --qat trains the weights instead"
