"""Tests given networks on several views of the same labelled images: the common part of ten crops and several scales.

Does not know which views: a ``ViewProtocol`` says how they are made and how their probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.images.imageset import ImageSet, require_labels
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.measurement.page.figure import MARKERS, SERIES, Chart, draw
from edge_resnet.network import class_names
from edge_resnet.studies.paper.networks import open_networks
from edge_resnet.studies.paper.request import ExperimentRequest, open_labelled
from edge_resnet.studies.paper.result import ExperimentResult, SetupDifference
from edge_resnet.studies.paper.tally import (
    ImageViews,
    Scheme,
    Tally,
    count_hits,
    difference_record,
    errors_table,
    with_significance,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ViewProtocol", "run_protocol"]

#: The images that the paper tests on.
_PAPER_IMAGES = "50,000 of ImageNet's validation set"


@dataclass(frozen=True)
class ViewProtocol:
    """How to test on several views of an image.

    ``views``: makes the views of an image, in groups of equal size. ``schemes``: by name; the others are compared with the
    first. ``paper``: gives the paper's errors for (network, scheme). ``differences``: from the paper's setup.
    """

    title: str
    views: Callable[[ImageArray], tuple[ImageArray, ...]]
    schemes: Mapping[str, Scheme]
    paper: Callable[[str, str], str | None]
    differences: tuple[SetupDifference, ...]


def run_protocol(request: ExperimentRequest, protocol: ViewProtocol, progress: Progress | None) -> ExperimentResult:
    """Test every network of the request, image by image.

    Raises ConfigError for CIFAR networks, which the paper tests on one view; WeightsError and DataError for weights and images
    that do not fit.
    """
    if request.family != "imagenet":
        raise ConfigError(
            f"{request.experiment} is for ImageNet networks; the paper tests CIFAR networks on one view (section 4.2)",
            hint="--family imagenet",
        )
    base = request.base_spec()
    networks = open_networks(request.weights, base, source=request.source, progress=progress)
    images = open_labelled(request, "test", classes=base.classes, names=class_names(base))
    count = _with_total(progress, len(images))
    tallies: list[Tally] = []
    for network in networks:
        try:
            tallies.append(count_hits(network, _views(images, protocol), protocol.schemes, request.preprocess, count))
        except KeyboardInterrupt:
            if not tallies:
                raise
            break
        if tallies[-1].interrupted:
            break
    weights = ", ".join(f"{network.name}: {network.weights[:19]}" for network in networks)
    return ExperimentResult(
        experiment=request.experiment,
        title=protocol.title,
        verdicts=tuple(_verdict(tally) for tally in tallies),
        tables=(errors_table("Errors on the same images; negative differences are better.", tallies, protocol.paper),),
        charts=(_chart(request.experiment, protocol.title, tallies),),
        differences=(
            SetupDifference("images", _PAPER_IMAGES, f"{len(images):,} of {images.name}"),
            SetupDifference("weights", "the paper's own", weights),
            *protocol.differences,
        ),
        settings=request.settings(),
        data={"networks": [_record(tally) for tally in tallies]},
        interrupted=len(tallies) < len(networks) or tallies[-1].interrupted,
    )


def _views(images: ImageSet, protocol: ViewProtocol) -> Iterator[ImageViews]:
    labels = require_labels(images)
    return (ImageViews(protocol.views(images.load(index)), labels[index]) for index in range(len(images)))


def _with_total(progress: Progress | None, total: int) -> Progress:
    def report(stage: str, done: int, _: int) -> None:
        if progress is not None:
            progress(stage, done, total)

    return report


def _verdict(tally: Tally) -> str:
    """The last scheme, which averages all views, against the first."""
    rates, differences = tally.rates(), tally.differences()
    first, last = next(iter(rates)), list(rates)[-1]
    return (
        f"{tally.name}: the error is {rates[last].top1:.2f} % with {last} and {rates[first].top1:.2f} % with {first}, on "
        f"{rates[last].images:,} images: {with_significance(differences[last])}."
    )


def _chart(name: str, title: str, tallies: Sequence[Tally]) -> Chart:
    """Each network's top-1 error with its interval, in a column per scheme."""
    schemes = list(tallies[0].hits)

    def paint(axes: Axes) -> None:
        step = 0.6 / len(tallies)
        for place, tally in enumerate(tallies):
            rates = list(tally.rates().values())
            spots = [spot + (place - (len(tallies) - 1) / 2) * step for spot in range(len(schemes))]
            low = [rate.top1 - rate.top1_ci95[0] for rate in rates]
            high = [rate.top1_ci95[1] - rate.top1 for rate in rates]
            mark, color = MARKERS[place % len(MARKERS)], SERIES[place % len(SERIES)]
            tops = [rate.top1 for rate in rates]
            axes.errorbar(spots, tops, yerr=[low, high], fmt=mark, color=color, capsize=3, label=tally.name)
            for spot, rate in zip(spots, rates, strict=True):
                axes.annotate(f"{rate.top1:.1f}", (spot, rate.top1), xytext=(6, -3), textcoords="offset points", fontsize=8)
        axes.set_xticks(range(len(schemes)), [scheme.replace(", ", ",\n") for scheme in schemes])
        axes.set_xlim(-0.5, len(schemes) - 0.5)
        axes.set_ylabel("top-1 error, %, with 95 % interval")
        axes.grid(visible=False, axis="x")
        axes.legend()

    errors = "; ".join(f"{t.name}: " + ", ".join(f"{s} {rate.top1:.2f}" for s, rate in t.rates().items()) for t in tallies)
    return draw(name, title, paint, alt=f"Top-1 error in percent by way of testing. {errors}.")


def _record(tally: Tally) -> dict[str, object]:
    return {
        "network": tally.name,
        "errors": {scheme: asdict(rate) for scheme, rate in tally.rates().items()},
        "against_first": {scheme: difference_record(found) for scheme, found in tally.differences().items()},
    }
