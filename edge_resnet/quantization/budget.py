"""The accuracy budget of ``--max-drop``: the fewest nodes in high precision with which INT8 keeps its top-1.

Does not know about graphs, ranges or images: a function in the problem runs the network with some nodes kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.schema import BudgetReport
from edge_resnet.core.errors import BudgetError, ConfigError, DataError
from edge_resnet.core.records import Progress
from edge_resnet.core.statistics import mcnemar_exact, paired_drop_interval
from edge_resnet.quantization.simulate import relative_error

__all__ = ["PROBE_IMAGES", "BudgetProblem", "budget_warning", "check_max_drop", "meet_budget"]

_log = logging.getLogger(__name__)

#: Images on which one node's damage is measured: an error of the logits needs far fewer than a share of right answers.
PROBE_IMAGES = 64

#: (N, classes) float32.
Logits: TypeAlias = npt.NDArray[np.float32]
Nodes: TypeAlias = frozenset[str]


@dataclass(frozen=True, eq=False)
class BudgetProblem:
    """What is measured, and how.

    ``nodes``: names of the nodes that can be quantized, in graph order. ``labels``: (N,) the class of each validation image.
    ``reference``: (N, classes) FP32's logits of them. ``logits(keep, positions)``: (len(positions), classes) the logits of the
    simulated INT8 for the validation images at these positions, with the nodes in ``keep`` in high precision and all others
    quantized; the same arguments give the same logits. ``costs``: how much speed keeping a node costs, in any one unit; 0 for a
    node that is missing.
    """

    nodes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    reference: Logits
    logits: Callable[[Nodes, Sequence[int]], Logits]
    costs: Mapping[str, float] = field(default_factory=dict)


def meet_budget(
    problem: BudgetProblem, max_drop: float, *, max_share: float = 1.0, progress: Progress | None = None
) -> BudgetReport:
    """Find the fewest nodes to keep so that FP32's top-1 minus INT8's is at most ``max_drop`` percent points on the same images.

    If INT8 meets the budget as it is, this takes one run over all images and no ranking. Otherwise each node is quantized alone
    on up to ``PROBE_IMAGES`` images, and the nodes are ranked by sum((int8 - fp32)²) / sum(fp32²) of the logits, the cheaper
    first of equal ones. Then k nodes from the top are kept: k is doubled until the budget is met, and found by bisection, so
    that k was seen to meet it and k - 1 was not, even if the drop does not fall steadily. Last, the least damaging of them are
    quantized again one by one if the budget is still met. For n nodes this takes at most 4 log2(n) + 5 runs over all images
    beside the n short runs of the ranking.

    ``max_share``: largest share of the nodes that may be kept. Raises BudgetError if the budget cannot be met, ConfigError for a
    budget outside 0..100 or a share outside 0..1, DataError if there are no images, or not one label and one answer for each.
    Can be interrupted at any time. Progress: ``budget: check`` counts runs over all images, ``budget: rank`` nodes.
    """
    _check(problem, max_drop, max_share)
    trials = _Trials(problem, max_drop, progress)
    kept: tuple[str, ...] = ()
    ranking: tuple[tuple[str, float], ...] = ()
    if not trials.meets(kept):
        limit = int(max_share * len(problem.nodes) + 1e-9)
        trials.planned += _max_runs(len(problem.nodes))
        ranking = _rank(problem, progress) if limit else ()
        kept = _fewest(tuple(name for name, _ in ranking[:limit]), trials)
        kept = _requantize(kept, trials, 2 * len(problem.nodes).bit_length())
    trials.close()
    report = trials.report(kept, ranking)
    _log.info("budget: %d of %d nodes kept, drop %.2f points", len(kept), len(problem.nodes), report.drop)
    if warning := budget_warning(report):
        _log.warning("%s", warning)
    return report


def budget_warning(report: BudgetReport) -> str:
    """One line if the measured drop is within the budget but the images are too few to be sure; else an empty string.

    The number of images in it would narrow the interval to ± the budget: its width falls with the root of the number.
    """
    low, high = report.drop_ci95
    if high <= report.max_drop or report.drop > report.max_drop:
        return ""
    needed = 0.0 if report.max_drop == 0 else report.images * ((high - low) / 2 / report.max_drop) ** 2
    text = f"{report.images} images leave INT8's drop between {low:.2f} and {high:.2f} points (95 % interval)"
    text += f", the budget is {report.max_drop:g}"
    return text + (
        f"; about {_rounded(needed)} images would narrow it to ± {report.max_drop:g}" if needed > report.images else ""
    )


def check_max_drop(max_drop: float) -> None:
    """Raise ConfigError unless a budget lies in 0..100 points of top-1."""
    if not 0 <= max_drop <= 100:
        raise ConfigError(f"the budget must lie in 0..100 points of top-1, not {max_drop}", hint="0.5 is a good start")


@dataclass(frozen=True)
class _Outcome:
    """Images that only FP32 classifies correctly, and that only INT8 does, with ``kept`` nodes in high precision."""

    kept: int
    only_fp32: int
    only_int8: int


class _Trials:
    """Runs over all validation images, each set of kept nodes once."""

    def __init__(self, problem: BudgetProblem, max_drop: float, progress: Progress | None) -> None:
        self._problem = problem
        self._max_drop = max_drop
        self._progress = progress
        self._images = range(len(problem.labels))
        self._fp32_hits = _hits(problem.reference, problem.labels)
        self._outcomes: dict[Nodes, _Outcome] = {}
        self.planned = 1

    def meets(self, kept: Sequence[str]) -> bool:
        """Whether the budget is met with these nodes in high precision."""
        return self._drop(self._outcome(frozenset(kept))) <= self._max_drop

    def report(self, kept: tuple[str, ...], ranking: tuple[tuple[str, float], ...]) -> BudgetReport:
        """The measurement with the nodes ``kept`` in high precision."""
        outcome, count = self._outcome(frozenset(kept)), len(self._images)
        low, high = paired_drop_interval(outcome.only_fp32, outcome.only_int8, count)
        fp32_hits = int(self._fp32_hits.sum())
        return BudgetReport(
            max_drop=self._max_drop,
            images=count,
            fp32_top1=100 * fp32_hits / count,
            int8_top1=100 * (fp32_hits - outcome.only_fp32 + outcome.only_int8) / count,
            drop=self._drop(outcome),
            drop_ci95=(100 * low, 100 * high),
            mcnemar_p=mcnemar_exact(outcome.only_fp32, outcome.only_int8),
            kept=kept,
            ranking=ranking,
        )

    def out_of_reach(self, kept: Sequence[str]) -> BudgetError:
        """The error if not even these nodes suffice."""
        best = min(self._outcomes.values(), key=lambda outcome: (self._drop(outcome), outcome.kept))
        drop = self._drop(self._outcome(frozenset(kept)))
        return BudgetError(
            f"INT8 loses {drop:.2f} points of top-1 with {len(kept)} of {len(self._problem.nodes)} nodes in high precision, "
            f"the budget is {self._max_drop:g} (best seen: {self._drop(best):.2f} with {best.kept})",
            hint="allow a larger drop, calibrate on other images or by another method, or use edge-resnet build --fp16",
        )

    def close(self) -> None:
        """Report that there are no more runs."""
        self._report_progress(len(self._outcomes))

    def _outcome(self, kept: Nodes) -> _Outcome:
        if kept not in self._outcomes:
            self._report_progress(self.planned)
            hits = _hits(_answers(self._problem, kept, self._images), self._problem.labels)
            only_fp32, only_int8 = int((self._fp32_hits & ~hits).sum()), int((hits & ~self._fp32_hits).sum())
            self._outcomes[kept] = outcome = _Outcome(len(kept), only_fp32, only_int8)
            _log.debug("budget: %d nodes kept, drop %.2f points: %s", len(kept), self._drop(outcome), sorted(kept))
        return self._outcomes[kept]

    def _drop(self, outcome: _Outcome) -> float:
        return 100 * (outcome.only_fp32 - outcome.only_int8) / len(self._images)

    def _report_progress(self, total: int) -> None:
        if self._progress is not None:
            self._progress("budget: check", len(self._outcomes), total)


def _check(problem: BudgetProblem, max_drop: float, max_share: float) -> None:
    check_max_drop(max_drop)
    if not 0 <= max_share <= 1:
        raise ConfigError(f"the share of nodes that may be kept must lie in 0..1, not {max_share}")
    if len(problem.labels) == 0:
        raise DataError("there is no image to measure the drop on", hint="it is measured on labelled images")
    if len(problem.labels) != len(problem.reference):
        raise DataError(f"{len(problem.labels)} labels for {len(problem.reference)} images")


def _answers(problem: BudgetProblem, keep: Nodes, images: Sequence[int]) -> Logits:
    logits = problem.logits(keep, images)
    if len(logits) != len(images):
        raise DataError(f"{len(images)} images gave {len(logits)} answers", hint="remove the images that cannot be read")
    return logits


def _hits(logits: Logits, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(N,) whether the best class is the label; logits that are not finite count as wrong."""
    hits: npt.NDArray[np.bool_] = (logits.argmax(axis=1) == labels) & np.isfinite(logits).all(axis=1)
    return hits


def _rank(problem: BudgetProblem, progress: Progress | None) -> tuple[tuple[str, float], ...]:
    """(node, damage if it alone is quantized), the largest first."""
    images = _probe_images(problem.labels)
    reference = problem.reference[images]
    everything, damages = frozenset(problem.nodes), {}
    for done, node in enumerate(problem.nodes):
        if progress is not None:
            progress("budget: rank", done, len(problem.nodes))
        damages[node] = relative_error(_answers(problem, everything - {node}, images), reference)
    if progress is not None:
        progress("budget: rank", len(problem.nodes), len(problem.nodes))
    names = sorted(problem.nodes, key=lambda node: (-damages[node], problem.costs.get(node, 0.0)))
    return tuple((name, damages[name]) for name in names)


def _probe_images(labels: npt.NDArray[np.int64]) -> list[int]:
    """Positions of up to ``PROBE_IMAGES`` images in order: the first of every class, then the second, and so on."""
    seen: dict[int, int] = {}
    rounds = []
    for position, label in enumerate(labels.tolist()):
        rounds.append((seen.get(label, 0), position))
        seen[label] = seen.get(label, 0) + 1
    return sorted(position for _, position in sorted(rounds)[:PROBE_IMAGES])


def _fewest(order: tuple[str, ...], trials: _Trials) -> tuple[str, ...]:
    """The shortest prefix of ``order`` with which the budget is met. Raises BudgetError if none that was tried meets it."""
    missing, meeting = 0, min(1, len(order))
    while not trials.meets(order[:meeting]):
        if meeting == len(order):
            raise trials.out_of_reach(order)
        missing, meeting = meeting, min(2 * meeting, len(order))
    while meeting - missing > 1:
        middle = (missing + meeting) // 2
        missing, meeting = (missing, middle) if trials.meets(order[:middle]) else (middle, meeting)
    return order[:meeting]


def _requantize(kept: tuple[str, ...], trials: _Trials, attempts: int) -> tuple[str, ...]:
    """Quantize nodes again that the budget does not need, the least damaging first; the last of ``kept`` is always needed."""
    for node in kept[-2::-1][:attempts]:
        fewer = tuple(name for name in kept if name != node)
        if trials.meets(fewer):
            kept = fewer
    return kept


def _max_runs(nodes: int) -> int:
    """Bound of the runs over all images after the first: doubling, bisection, quantizing again."""
    return 4 * max(1, nodes).bit_length()


def _rounded(number: float) -> str:
    """Rounded up to two digits, with separators: 3141 → 3,200."""
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / unit) * unit:,}"
