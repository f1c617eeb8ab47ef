"""Standard deviations of layer responses (section 4.2, figure 7) in given or trained networks. Does not know about errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.images.imageset import ImageSet, batches
from edge_resnet.images.preprocess import ImageArray
from edge_resnet.measurement.page.figure import MARKERS, SERIES, Chart, draw
from edge_resnet.network import class_names
from edge_resnet.studies.paper.networks import normalised, open_networks
from edge_resnet.studies.paper.request import ExperimentRequest, open_labelled
from edge_resnet.studies.paper.result import Column, ExperimentResult, SetupDifference, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Responses", "layer_deviations", "responses"]

_BATCH = 100
#: The networks in figure 7.
_PAPER_NETWORKS = "plain-20, plain-56, ResNet-20, ResNet-56, ResNet-110"


@dataclass(frozen=True)
class Responses:
    """The responses of one network.

    ``layers``: names of the 3x3 convolutions in order. ``deviations``: the standard deviation of each one's output after its
    batch norm, over all images, channels and positions.
    """

    name: str
    plain: bool
    layers: tuple[str, ...]
    deviations: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean deviation over the layers."""
        return float(np.mean(self.deviations))


def responses(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Measure every network of the request on its test images, which must be labelled although the labels are not used."""
    base = request.base_spec()
    networks = open_networks(request.weights, base, source=request.source, progress=progress)
    images = open_labelled(request, "test", classes=base.classes, names=class_names(base))
    found: list[Responses] = []
    for network in networks:
        try:
            measured = layer_deviations(network.module, _images(images, request, network.name, progress), request.preprocess)
        except KeyboardInterrupt:
            if not found:
                raise
            break
        found.append(Responses(network.name, network.spec.plain, tuple(measured), tuple(measured.values())))
    return ExperimentResult(
        experiment="responses",
        title="Standard deviations of layer responses (figure 7)",
        verdicts=_verdicts(found),
        tables=(_table(found),),
        charts=(_chart(found, in_order=True), _chart(found, in_order=False)),
        differences=(
            SetupDifference("networks", _PAPER_NETWORKS, ", ".join(one.name for one in found)),
            SetupDifference("images", "of CIFAR-10, number not stated", f"{len(images):,} of {images.name}"),
        ),
        settings=request.settings(),
        data={"networks": [{"network": r.name, "layers": r.layers, "deviations": r.deviations, "mean": r.mean} for r in found]},
        interrupted=len(found) < len(networks),
    )


def layer_deviations(network: nn.Module, images: Iterable[ImageArray], spec: Preprocess) -> dict[str, float]:
    """The standard deviation of every 3x3 convolution's output, after its batch norm and before ReLU or addition.

    ``images``: batches (n, H, W, 3) uint8 RGB. Takes one pass in constant memory, with sums of values and squares in float64.
    Raises ConfigError if the network has no 3x3 convolution followed by a batch norm.
    """
    sums: dict[str, list[float]] = {}
    norms = dict(_norms(network))
    if not norms:
        raise ConfigError(
            "the network has no 3x3 convolution with a batch norm", hint="choose a network that `edge-resnet models` lists"
        )
    hooks = [norm.register_forward_hook(_adder(sums.setdefault(name, [0.0, 0.0, 0.0]))) for name, norm in norms.items()]
    try:
        with torch.inference_mode():
            for batch in images:
                network(normalised(batch, spec))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _deviation(*parts) for name, parts in sums.items()}


def _norms(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The name of each 3x3 convolution with the batch norm that follows it: ``bn2`` follows ``conv2``, as in torchvision."""
    modules = dict(network.named_modules())
    return [
        (name, modules[norm])
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and (norm := _norm_name(name)) in modules
    ]


def _norm_name(convolution: str) -> str:
    head, _, last = convolution.rpartition(".")
    return f"{head}.{last.replace('conv', 'bn')}".lstrip(".")


def _adder(parts: list[float]) -> Callable[[nn.Module, object, torch.Tensor], None]:
    def add(_: nn.Module, __: object, out: torch.Tensor) -> None:
        values = out.double()
        parts[0] += out.numel()
        parts[1] += float(values.sum())
        parts[2] += float(values.square().sum())

    return add


def _deviation(count: float, total: float, squares: float) -> float:
    return float(max(0.0, squares / count - (total / count) ** 2) ** 0.5) if count else 0.0


def _images(images: ImageSet, request: ExperimentRequest, name: str, progress: Progress | None) -> Iterable[ImageArray]:
    done = 0
    for batch in batches(images, request.preprocess, _BATCH):
        yield batch.images
        done += len(batch.images)
        if progress is not None:
            progress(name, done, len(images))


def _verdicts(found: Sequence[Responses]) -> tuple[str, ...]:
    """The deepest residual network against the shallowest, and residual against plain of the same depth, as in figure 7."""
    means = ", ".join(f"{one.name} {one.mean:.3f}" for one in found)
    sentences = [f"Mean over the layers: {means}."]
    residual = [one for one in found if not one.plain]
    pairs = [(max(residual, key=_layers), min(residual, key=_layers))] if len(residual) > 1 else []
    pairs += [(one, twin) for one in residual for twin in found if twin.plain and _layers(twin) == _layers(one)]
    for one, other in pairs:
        verdict = "less" if one.mean < other.mean else "not less"
        sentences.append(f"{one.name}'s layers respond {verdict} than {other.name}'s ({one.mean:.3f} against {other.mean:.3f}).")
    return tuple(sentences)


def _layers(one: Responses) -> int:
    return len(one.layers)


def _table(found: Sequence[Responses]) -> Table:
    columns = (
        Column("network", "network"),
        Column("3x3 layers", "layers", 0),
        Column("mean", "mean", 3),
        Column("median", "median", 3),
        Column("largest", "largest", 3),
        Column("smallest", "smallest", 3),
    )
    rows = tuple(
        (one.name, _layers(one), one.mean, float(np.median(one.deviations)), max(one.deviations), min(one.deviations))
        for one in found
    )
    return Table("Standard deviations of the 3x3 layers' responses; the paper draws them and prints no numbers.", columns, rows)


def _chart(found: Sequence[Responses], *, in_order: bool) -> Chart:
    def paint(axes: Axes) -> None:
        for place, one in enumerate(found):
            values = one.deviations if in_order else tuple(sorted(one.deviations, reverse=True))
            line = f"{MARKERS[place % len(MARKERS)]}{'--' if one.plain else '-'}"
            color = SERIES[place % len(SERIES)]
            axes.plot(range(1, len(values) + 1), values, line, color=color, label=one.name, markersize=4, linewidth=1.3)
        axes.set_xlabel("layer, in order" if in_order else "layer, sorted by response")
        axes.set_ylabel("standard deviation")
        axes.set_ylim(0, None)
        axes.legend()

    ranges = "; ".join(f"{one.name} from {max(one.deviations):.2f} down to {min(one.deviations):.2f}" for one in found)
    kind = "in the order of the layers" if in_order else "sorted"
    title = f"Layer responses {kind}"
    return draw(f"responses-{'order' if in_order else 'sorted'}", title, paint, alt=f"Standard deviations {kind}. {ranges}.")
