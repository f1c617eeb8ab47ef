"""Several networks as one: their softmax averaged, alike and with weights chosen on images held out (section 4.1).

Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import Progress
from edge_resnet.images.imageset import ImageSet, batches, require_several
from edge_resnet.measurement.page.figure import SERIES, Chart, draw
from edge_resnet.network import class_names
from edge_resnet.studies.paper.networks import Member, Probabilities, open_members, probabilities
from edge_resnet.studies.paper.request import ExperimentRequest, labelled
from edge_resnet.studies.paper.result import Cell, Column, ExperimentResult, Scaled, Table
from edge_resnet.studies.paper.tally import Difference, ErrorRate, difference, error_rate, hits_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ensemble", "halves", "mixture_weights"]

_EQUAL, _WEIGHTED = "all, equal weights", "all, chosen weights"
#: Images a call.
_BATCH = 64
#: The likelihood is concave in the weights; the iteration ends where none moves by more than this.
_STILL, _MAX = 1e-7, 100_000

Ints = npt.NDArray[np.int64]


def ensemble(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Average the networks that the request names; weights, and the best single one, are chosen on a part held out.

    Raises ConfigError for fewer than two networks or networks of one kind of input only, DataError for too few images.
    """
    like = request.like()
    members = open_members(request.weights, like, source=request.source, progress=progress)
    if len(members) < 2:
        raise ConfigError("an ensemble has two networks at least", hint="give --weights NAME=FILE twice")
    images = labelled(request, "test", classes=like.classes, names=class_names(like))
    require_several(images, 4)
    answers, labels, interrupted = _answers(members, images, request, progress)
    used = members[: len(answers)]
    chosen, tested = halves(labels, request.held_out, request.seed)
    weights = mixture_weights(answers[:, chosen], labels[chosen])
    ways = _ways(used, answers[:, tested], weights)
    hits = {name: hits_of(probs, labels[tested]) for name, probs in ways.items()}
    held = [error_rate(hits_of(probs[chosen], labels[chosen])).top1 for probs in answers]
    best = used[int(np.argmin(held))].name
    against = {name: difference(hits[name][:, 0], hits[best][:, 0]) for name in hits if name != best}
    shares = dict(zip((member.name for member in used), weights.tolist(), strict=True))
    found = _Found({name: error_rate(rows) for name, rows in hits.items()}, against, shares, best)
    return ExperimentResult(
        "ensemble",
        "An ensemble of several depths",
        _verdicts(found),
        (_table(found),),
        (_chart(found),),
        _scaled(used, images, len(chosen)),
        request.settings(),
        {
            "held_out_images": len(chosen),
            "test_images": len(tested),
            "best_single": best,
            "weights": found.weights,
            "held_out_errors": dict(zip(found.weights, held, strict=True)),
            "errors": {name: asdict(rate) for name, rate in found.rates.items()},
            "against_best_single": {name: asdict(apart) for name, apart in against.items()},
        },
        interrupted,
    )


def halves(labels: Ints, share: float, seed: int) -> tuple[Ints, Ints]:
    """Indices of the part held out, about ``share`` of all, and of the rest: both with every class in the same proportion.

    Class after class, shuffled within each by ``seed``, every so-manieth image is held out; at least one falls on each side.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    ends = np.floor(np.arange(len(order) + 1) * share + rng.random())
    held = np.diff(ends) > 0
    if held.all() or not held.any():
        held[0] = not held[0]
    return np.sort(order[held]), np.sort(order[~held])


def mixture_weights(answers: Probabilities, labels: Ints) -> npt.NDArray[np.float64]:
    """The weights, summing to 1, under which the mixture of ``answers`` (members, N, classes) makes ``labels`` (N,) likeliest.

    Expectation-maximisation for the weights of a mixture whose parts are fixed: the likelihood is concave in them and rises at
    every step, so that it ends at the best there is, without a rate to choose.
    """
    right = np.maximum(answers[:, np.arange(len(labels)), labels].astype(np.float64), np.finfo(np.float64).tiny)
    weights = np.full(len(right), 1 / len(right))
    for _ in range(_MAX):
        parts = weights[:, None] * right
        fresh = np.asarray((parts / parts.sum(axis=0)).mean(axis=1), np.float64)
        if np.abs(fresh - weights).max() < _STILL:
            return fresh
        weights = fresh
    return weights


@dataclass(frozen=True)
class _Found:
    """Errors on the test part by way; differences from the ``best`` single network; the members' chosen ``weights``."""

    rates: Mapping[str, ErrorRate]
    against: Mapping[str, Difference]
    weights: Mapping[str, float]
    best: str


def _answers(
    members: Sequence[Member], images: ImageSet, request: ExperimentRequest, progress: Progress | None
) -> tuple[Probabilities, Ints, bool]:
    """(members, N, classes) and labels (N,); Ctrl-C after the second member ends it with the members so far."""
    answers: list[Probabilities] = []
    labels: list[int] = []
    for member in members:
        rows: list[Probabilities] = []
        labels_now: list[int] = []
        try:
            for batch in batches(images, request.preprocess, _BATCH):
                assert batch.labels is not None
                rows.append(probabilities(member.network, batch.images, request.preprocess))
                labels_now += batch.labels.tolist()
                if progress is not None:
                    progress(member.name, len(labels_now), len(images))
        except KeyboardInterrupt:
            if len(answers) < 2:
                raise
            return np.stack(answers), np.array(labels), True
        answers.append(np.concatenate(rows))
        labels = labels_now
    if len(labels) < 4:
        raise DataError(f"{images.name} has {len(labels)} readable images, too few for two parts", hint="give a larger set")
    return np.stack(answers), np.array(labels), False


def _ways(members: Sequence[Member], answers: Probabilities, weights: npt.NDArray[np.float64]) -> dict[str, Probabilities]:
    single = {member.name: probs for member, probs in zip(members, answers, strict=True)}
    return {**single, _EQUAL: answers.mean(axis=0), _WEIGHTED: np.tensordot(weights, answers, axes=1).astype(np.float32)}


def _verdicts(found: _Found) -> tuple[str, ...]:
    sentences = []
    for name in (_EQUAL, _WEIGHTED):
        apart, rate = found.against[name], found.rates[name]
        clear = "significant" if apart.significant else "no significant difference"
        sentences.append(
            f"{name[0].upper()}{name[1:]}: {rate.top1:.2f} % top-1 error on {rate.images:,} images, {apart.points:+.2f} points "
            f"against {found.best}'s {found.rates[found.best].top1:.2f} % (95 % interval {apart.ci95[0]:+.2f} to "
            f"{apart.ci95[1]:+.2f}, McNemar p = {apart.p:.2g}), {clear}."
        )
    words = ", ".join(f"{name} {weight:.3f}" for name, weight in found.weights.items())
    return (*sentences, f"The weights chosen on the images held out: {words}; {found.best} errs least on those.")


def _table(found: _Found) -> Table:
    columns = (
        Column("network", "network"),
        Column("chosen weight", "weight", 3),
        Column("top-1 error, %", "top1_error", 2),
        Column("95 % interval", "top1_error_ci95"),
        Column("top-5 error, %", "top5_error", 2),
        Column(f"top-1 against {found.best}, points", "difference"),
    )
    rows: list[tuple[Cell, ...]] = []
    for name, rate in found.rates.items():
        interval = f"{rate.top1_ci95[0]:.2f} to {rate.top1_ci95[1]:.2f}"
        apart = found.against[name].text if name in found.against else None
        rows.append((name, found.weights.get(name), rate.top1, interval, rate.top5, apart))
    caption = (
        "Errors on the part of the images that chose neither the weights nor the best single network. The paper's ensemble "
        "of six: 3.57 % top-5 on ImageNet's test set (table 5); its best single network: 4.49 % on the validation set (table 4)."
    )
    return Table(caption, columns, tuple(rows))


def _chart(found: _Found) -> Chart:
    names = list(found.rates)

    def paint(axes: Axes) -> None:
        for place, name in enumerate(names):
            rate = found.rates[name]
            low, high = rate.top1 - rate.top1_ci95[0], rate.top1_ci95[1] - rate.top1
            color = SERIES[1] if name in (_EQUAL, _WEIGHTED) else SERIES[0]
            axes.errorbar(rate.top1, place, xerr=[[low], [high]], fmt="o", color=color, capsize=3)
            axes.annotate(f"{rate.top1:.2f}", (rate.top1, place), xytext=(0, 6), textcoords="offset points", fontsize=9)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel("top-1 error, %, with 95 % interval")
        axes.grid(visible=False, axis="y")

    words = ", ".join(f"{name} {rate.top1:.2f}" for name, rate in found.rates.items())
    alt = f"Top-1 error in percent on the same images: {words}."
    return draw("ensemble", "Single networks and their ensemble", paint, alt=alt, size=(7.0, 1.4 + 0.5 * len(names)))


def _scaled(members: Sequence[Member], images: ImageSet, held: int) -> tuple[Scaled, ...]:
    return (
        Scaled("networks", "six of different depths, two of them of 152 layers", ", ".join(member.name for member in members)),
        Scaled("images", "100,000 of ImageNet's test set", f"{len(images) - held:,} of {images.name}"),
        Scaled("views of an image", "several scales, fully convolutional", "one"),
        Scaled("weights of the average", "not said", f"alike, and chosen on {held:,} other images"),
    )
