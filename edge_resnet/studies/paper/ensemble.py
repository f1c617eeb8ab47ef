"""Ensembles: the averaged softmax of several networks, with equal weights or weights chosen on held-out images (section 4.1).

Does not know about training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import Progress
from edge_resnet.core.statistics import PairedDifference
from edge_resnet.images.imageset import ImageSet, batches, require_several
from edge_resnet.measurement.page.figure import SERIES, Chart, draw
from edge_resnet.network import class_names
from edge_resnet.studies.paper.networks import LoadedNetwork, Probabilities, open_networks, probabilities
from edge_resnet.studies.paper.request import ExperimentRequest, open_labelled
from edge_resnet.studies.paper.result import Cell, Column, ExperimentResult, SetupDifference, Table
from edge_resnet.studies.paper.tally import (
    ErrorRate,
    difference_record,
    difference_text,
    error_difference,
    error_rate,
    hits_of,
    with_significance,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ensemble", "halves", "mixture_weights"]

_EQUAL, _WEIGHTED = "all, equal weights", "all, chosen weights"
#: Images per inference.
_BATCH = 64
#: The iteration for the weights ends when no weight changes by more than this, or after so many steps.
_TOLERANCE, _MAX_ITERATIONS = 1e-7, 100_000

Ints = npt.NDArray[np.int64]


def ensemble(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Average the networks of the request. The weights and the best single network are chosen on a held-out part of the images.

    Raises ConfigError for fewer than two networks, DataError for too few images.
    """
    base = request.base_spec()
    networks = open_networks(request.weights, base, source=request.source, progress=progress)
    if len(networks) < 2:
        raise ConfigError("an ensemble needs at least two networks", hint="give --weights NAME=FILE twice")
    images = open_labelled(request, "test", classes=base.classes, names=class_names(base))
    require_several(images, 4)
    predictions = _predict(networks, images, request, progress)
    used, labels = networks[: len(predictions.probabilities)], predictions.labels
    chosen, tested = halves(labels, request.held_out, request.seed)
    weights = mixture_weights(predictions.probabilities[:, chosen], labels[chosen])
    candidates = _candidates(used, predictions.probabilities[:, tested], weights)
    hits = {name: hits_of(predicted, labels[tested]) for name, predicted in candidates.items()}
    held_out_errors = [error_rate(hits_of(predicted[chosen], labels[chosen])).top1 for predicted in predictions.probabilities]
    best = used[int(np.argmin(held_out_errors))].name
    found = _Comparison(
        rates={name: error_rate(rows) for name, rows in hits.items()},
        against={name: error_difference(hits[name][:, 0], hits[best][:, 0]) for name in hits if name != best},
        weights=dict(zip((network.name for network in used), weights.tolist(), strict=True)),
        best=best,
    )
    return ExperimentResult(
        experiment="ensemble",
        title="An ensemble of several depths",
        verdicts=_verdicts(found),
        tables=(_table(found),),
        charts=(_chart(found),),
        differences=_differences(used, images, len(chosen)),
        settings=request.settings(),
        data={
            "held_out_images": len(chosen),
            "test_images": len(tested),
            "best_single": best,
            "weights": found.weights,
            "held_out_errors": dict(zip(found.weights, held_out_errors, strict=True)),
            "errors": {name: asdict(rate) for name, rate in found.rates.items()},
            "against_best_single": {name: difference_record(one) for name, one in found.against.items()},
        },
        interrupted=predictions.interrupted,
    )


def halves(labels: Ints, share: float, seed: int) -> tuple[Ints, Ints]:
    """The indices of the held-out part, about ``share`` of all, and of the rest, with the same proportion of every class.

    The images are shuffled by ``seed`` and sorted by class, and held out at regular intervals. Neither part is empty.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    ends = np.floor(np.arange(len(order) + 1) * share + rng.random())
    held_out = np.diff(ends) > 0
    if held_out.all() or not held_out.any():
        held_out[0] = not held_out[0]
    return np.sort(order[held_out]), np.sort(order[~held_out])


def mixture_weights(predicted: Probabilities, labels: Ints) -> npt.NDArray[np.float64]:
    """The maximum-likelihood weights, which sum to 1, of the mixture of ``predicted`` (networks, N, classes) for ``labels`` (N,).

    Found by expectation-maximisation for a mixture of fixed components. The likelihood is concave in the weights and rises with
    every step, so that the iteration reaches the global maximum without a learning rate.
    """
    likelihoods = np.maximum(predicted[:, np.arange(len(labels)), labels].astype(np.float64), np.finfo(np.float64).tiny)
    weights = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(_MAX_ITERATIONS):
        joint = weights[:, None] * likelihoods
        updated = np.asarray((joint / joint.sum(axis=0)).mean(axis=1), np.float64)
        if np.abs(updated - weights).max() < _TOLERANCE:
            return updated
        weights = updated
    return weights


@dataclass(frozen=True)
class _Predictions:
    """``probabilities`` (networks, N, classes) of the images that could be read, and their ``labels`` (N,)."""

    probabilities: Probabilities
    labels: Ints
    interrupted: bool


@dataclass(frozen=True)
class _Comparison:
    """Error rates on the test part, by network or ensemble; differences from the ``best`` single network; chosen ``weights``."""

    rates: Mapping[str, ErrorRate]
    against: Mapping[str, PairedDifference]
    weights: Mapping[str, float]
    best: str


def _predict(
    networks: Sequence[LoadedNetwork], images: ImageSet, request: ExperimentRequest, progress: Progress | None
) -> _Predictions:
    """Classify all images with every network. On Ctrl-C returns the networks so far, if they are at least two."""
    finished: list[Probabilities] = []
    labels: list[int] = []
    for network in networks:
        rows: list[Probabilities] = []
        labels_read: list[int] = []
        try:
            for batch in batches(images, request.preprocess, _BATCH):
                assert batch.labels is not None
                rows.append(probabilities(network.module, batch.images, request.preprocess))
                labels_read += batch.labels.tolist()
                if progress is not None:
                    progress(network.name, len(labels_read), len(images))
        except KeyboardInterrupt:
            if len(finished) < 2:
                raise
            return _Predictions(np.stack(finished), np.array(labels), interrupted=True)
        finished.append(np.concatenate(rows))
        labels = labels_read
    if len(labels) < 4:
        raise DataError(f"{images.name} has {len(labels)} readable images, too few for two parts", hint="give a larger set")
    return _Predictions(np.stack(finished), np.array(labels), interrupted=False)


def _candidates(
    networks: Sequence[LoadedNetwork], predicted: Probabilities, weights: npt.NDArray[np.float64]
) -> dict[str, Probabilities]:
    """The probabilities of each network, and of both ensembles."""
    single = {network.name: one for network, one in zip(networks, predicted, strict=True)}
    weighted = np.tensordot(weights, predicted, axes=1).astype(np.float32)
    return {**single, _EQUAL: predicted.mean(axis=0), _WEIGHTED: weighted}


def _verdicts(found: _Comparison) -> tuple[str, ...]:
    sentences = []
    for name in (_EQUAL, _WEIGHTED):
        rate = found.rates[name]
        sentences.append(
            f"{name[0].upper()}{name[1:]}: {rate.top1:.2f} % top-1 error on {rate.images:,} images, against "
            f"{found.rates[found.best].top1:.2f} % of {found.best}: {with_significance(found.against[name])}."
        )
    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in found.weights.items())
    return (*sentences, f"The weights chosen on the held-out images: {weights}. {found.best} has the lowest error on these.")


def _table(found: _Comparison) -> Table:
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
        against = difference_text(found.against[name]) if name in found.against else None
        rows.append((name, found.weights.get(name), rate.top1, interval, rate.top5, against))
    caption = (
        "Errors on the images that were not held out to choose the weights and the best single network. The paper's ensemble "
        "of six: 3.57 % top-5 on ImageNet's test set (table 5); its best single network: 4.49 % on the validation set (table 4)."
    )
    return Table(caption, columns, tuple(rows))


def _chart(found: _Comparison) -> Chart:
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

    errors = ", ".join(f"{name} {rate.top1:.2f}" for name, rate in found.rates.items())
    alt = f"Top-1 error in percent on the same images: {errors}."
    return draw("ensemble", "Single networks and their ensemble", paint, alt=alt, size=(7.0, 1.4 + 0.5 * len(names)))


def _differences(networks: Sequence[LoadedNetwork], images: ImageSet, held_out: int) -> tuple[SetupDifference, ...]:
    names = ", ".join(network.name for network in networks)
    return (
        SetupDifference("networks", "six of different depths, two of them of 152 layers", names),
        SetupDifference("images", "100,000 of ImageNet's test set", f"{len(images) - held_out:,} of {images.name}"),
        SetupDifference("views of an image", "several scales, fully convolutional", "one"),
        SetupDifference("weights of the average", "not stated", f"equal, and chosen on {held_out:,} other images"),
    )
