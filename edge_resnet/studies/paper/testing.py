"""Testing given weights in several ways on the same labelled images: what ten crops and several scales share.

Knows neither: a ``Way`` says how an image is looked at and how its answers are joined.
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
from edge_resnet.studies.paper.networks import open_members
from edge_resnet.studies.paper.request import ExperimentRequest, labelled
from edge_resnet.studies.paper.result import ExperimentResult, Scaled
from edge_resnet.studies.paper.tally import Scheme, Tally, View, count_hits, errors_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Way", "errors_by_way"]

#: Images of the set that the paper tests on.
_PAPER_IMAGES = "50,000 of ImageNet's validation set"


@dataclass(frozen=True)
class Way:
    """``views``: an image's views in groups of one size. ``schemes``: the first is what the others are compared with.
    ``paper``: what the paper has for (network, scheme). ``scaled``: what is not as in the paper."""

    title: str
    views: Callable[[ImageArray], tuple[ImageArray, ...]]
    schemes: Mapping[str, Scheme]
    paper: Callable[[str, str], str | None]
    scaled: tuple[Scaled, ...]


def errors_by_way(request: ExperimentRequest, way: Way, progress: Progress | None) -> ExperimentResult:
    """Test every network that the request names, image by image.

    Raises ConfigError for CIFAR's networks, which the paper tests on one view; WeightsError and DataError for what does not fit.
    """
    if request.family != "imagenet":
        raise ConfigError(
            f"{request.experiment} is how the paper tests ImageNet's networks; CIFAR's see the one image (section 4.2)",
            hint="--family imagenet",
        )
    like = request.like()
    members = open_members(request.weights, like, source=request.source, progress=progress)
    images = labelled(request, "test", classes=like.classes, names=class_names(like))
    tallies: list[Tally] = []
    for member in members:
        try:
            tallies.append(count_hits(member, _looks(images, way), way.schemes, request.preprocess, _counted(progress, images)))
        except KeyboardInterrupt:
            if not tallies:
                raise
            break
        if tallies[-1].interrupted:
            break
    interrupted = len(tallies) < len(members) or tallies[-1].interrupted
    return ExperimentResult(
        request.experiment,
        way.title,
        tuple(_verdict(tally) for tally in tallies),
        (errors_table("Errors on the same images; below zero is better than the first way.", tallies, way.paper),),
        (_chart(request.experiment, way.title, tallies),),
        (
            Scaled("images", _PAPER_IMAGES, f"{len(images):,} of {images.name}"),
            Scaled("weights", "the paper's own", ", ".join(f"{m.name}: {m.weights[:19]}" for m in members)),
            *way.scaled,
        ),
        request.settings(),
        {"networks": [_record(tally) for tally in tallies]},
        interrupted,
    )


def _looks(images: ImageSet, way: Way) -> Iterator[View]:
    labels = require_labels(images)
    return (View(way.views(images.load(index)), labels[index]) for index in range(len(images)))


def _counted(progress: Progress | None, images: ImageSet) -> Progress:
    def report(stage: str, done: int, _: int) -> None:
        if progress is not None:
            progress(stage, done, len(images))

    return report


def _verdict(tally: Tally) -> str:
    rates, differences = tally.rates(), tally.differences()
    first, last = next(iter(rates)), list(rates)[-1]
    found = differences[last]
    apart = "significant" if found.significant else "no significant difference"
    return (
        f"{tally.name}: {last} err on {rates[last].top1:.2f} % of {rates[last].images:,} images, {first} on "
        f"{rates[first].top1:.2f} %: {found.points:+.2f} points (95 % interval {found.ci95[0]:+.2f} to "
        f"{found.ci95[1]:+.2f}, McNemar p = {found.p:.2g}), {apart}."
    )


def _chart(name: str, title: str, tallies: Sequence[Tally]) -> Chart:
    """Each network's top-1 error in every way, with its interval: a column of points per way."""
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

    words = "; ".join(f"{t.name}: " + ", ".join(f"{s} {rate.top1:.2f}" for s, rate in t.rates().items()) for t in tallies)
    return draw(name, title, paint, alt=f"Top-1 error in percent by the way of testing. {words}.")


def _record(tally: Tally) -> dict[str, object]:
    return {
        "network": tally.name,
        "errors": {scheme: asdict(rate) for scheme, rate in tally.rates().items()},
        "against_first": {scheme: asdict(apart) for scheme, apart in tally.differences().items()},
    }
