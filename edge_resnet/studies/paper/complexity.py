"""Tables 1 and 6: parameters and multiply-adds of the networks as built here. Does not know about weights or images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_resnet.core.records import ModelSpec, Progress
from edge_resnet.measurement.page.figure import SERIES, Chart, draw
from edge_resnet.network import NetworkFacts
from edge_resnet.network.zoo import measure, paper_table
from edge_resnet.studies.paper.figures import CIFAR_MPARAMS, IMAGENET_GFLOPS
from edge_resnet.studies.paper.networks import printed_name
from edge_resnet.studies.paper.request import ExperimentRequest
from edge_resnet.studies.paper.result import Column, ExperimentResult, SetupDifference, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["complexity"]

#: VGG-16's multiply-adds in 10⁹ (section 4.1 of the paper calls them FLOPs).
_VGG16_GFLOPS = 15.3


def complexity(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Measure every network of tables 1 and 6, and its plain twin. Needs no images."""
    facts = paper_table()
    twins = []
    for place, fact in enumerate(facts):
        if progress is not None:
            progress("measure", place, len(facts))
        twins.append(measure(replace(fact.spec, plain=True)).parameters)
    if progress is not None:
        progress("measure", len(facts), len(facts))
    imagenet = [fact for fact in facts if fact.spec.family == "imagenet"]
    cifar = [fact for fact in facts if fact.spec.family == "cifar"]
    return ExperimentResult(
        experiment="complexity",
        title="Complexity of the paper's networks, measured",
        verdicts=_verdicts(imagenet, cifar, dict(zip((fact.spec for fact in facts), twins, strict=True))),
        tables=(_imagenet_table(imagenet), _cifar_table(cifar)),
        charts=(_chart(imagenet),),
        differences=(SetupDifference("networks", "trained", "not trained, which the counts do not need"),),
        settings=request.settings(),
        data={"networks": [_record(fact, twin) for fact, twin in zip(facts, twins, strict=True)]},
    )


def _verdicts(imagenet: list[NetworkFacts], cifar: list[NetworkFacts], twins: dict[ModelSpec, int]) -> tuple[str, ...]:
    off = [f for f in cifar if abs(f.parameters / 1e6 - CIFAR_MPARAMS[f.spec.depth]) > _rounding(CIFAR_MPARAMS[f.spec.depth])]
    deepest = imagenet[-1]
    macs = deepest.paper_stride_multiply_adds / 1e9
    less = "fewer" if macs < _VGG16_GFLOPS else "not fewer"
    gaps = {f.spec: abs(f.paper_stride_multiply_adds / 1e9 - IMAGENET_GFLOPS[f.spec.depth]) for f in imagenet}
    widest = max(gaps, key=gaps.__getitem__)
    exceptions = f", except for {', '.join(printed_name(f.spec) for f in off)}" if off else ""
    same = all(twins[fact.spec] == fact.parameters for fact in cifar)
    return (
        f"{printed_name(deepest.spec)} has {macs:.2f} · 10⁹ multiply-adds, {less} than VGG-16's {_VGG16_GFLOPS} · 10⁹.",
        f"With the paper's stride, they differ from table 1 by at most {gaps[widest]:.2f} · 10⁹ ({printed_name(widest)}).",
        f"The parameters agree with table 6 to its last digit{exceptions}.",
        f"Option A shortcuts add {'no' if same else 'some'} parameters to the plain twins.",
    )


def _rounding(figure: float) -> float:
    """Half of the last printed digit (1.7 and 19.4 have one decimal, 0.27 has two), plus a margin for binary fractions."""
    return (0.05 if round(figure, 1) == figure else 0.005) + 1e-9


def _imagenet_table(facts: list[NetworkFacts]) -> Table:
    columns = (
        Column("network", "network"),
        Column("block", "block"),
        Column("parameters, 10⁶", "mparams", 2),
        Column("multiply-adds as built, 10⁹", "gmacs", 3),
        Column("with the paper's stride, 10⁹", "gmacs_paper_stride", 3),
        Column("the paper, 10⁹", "paper_gflops", 1),
    )
    rows = tuple(
        (
            *(printed_name(f.spec), f.block, f.parameters / 1e6, f.multiply_adds / 1e9, f.paper_stride_multiply_adds / 1e9),
            IMAGENET_GFLOPS[f.spec.depth],
        )
        for f in facts
    )
    caption = (
        "Table 1: ImageNet, option B, one image of 224 x 224. As built here: torchvision's bottlenecks, "
        "with the stride on the 3x3 convolution; the paper has it on the first 1x1."
    )
    return Table(caption, columns, rows)


def _cifar_table(facts: list[NetworkFacts]) -> Table:
    columns = (
        Column("network", "network"),
        Column("parameters, 10⁶", "mparams", 3),
        Column("the paper, 10⁶", "paper_mparams", 2),
        Column("multiply-adds, 10⁹", "gmacs", 3),
    )
    rows = tuple((printed_name(f.spec), f.parameters / 1e6, CIFAR_MPARAMS[f.spec.depth], f.multiply_adds / 1e9) for f in facts)
    return Table("Table 6: CIFAR-10, option A, one image of 32 x 32.", columns, rows)


def _chart(facts: list[NetworkFacts]) -> Chart:
    depths = [fact.spec.depth for fact in facts]
    lines = (
        ("as built here", [fact.multiply_adds / 1e9 for fact in facts]),
        ("with the paper's stride", [fact.paper_stride_multiply_adds / 1e9 for fact in facts]),
        ("the paper, table 1", [IMAGENET_GFLOPS[depth] for depth in depths]),
    )

    def paint(axes: Axes) -> None:
        width = 0.27
        for place, (label, values) in enumerate(lines):
            spots = [spot + (place - 1) * width for spot in range(len(depths))]
            bars = axes.bar(spots, values, width * 0.92, color=SERIES[place], label=label)
            axes.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=8, padding=1)
        axes.axhline(_VGG16_GFLOPS, color=SERIES[3], linestyle="--", linewidth=1.2)
        axes.annotate(f"VGG-16: {_VGG16_GFLOPS}", (-0.4, _VGG16_GFLOPS), xytext=(0, 3), textcoords="offset points", fontsize=9)
        axes.set_xticks(range(len(depths)), [f"ResNet-{depth}" for depth in depths])
        axes.set_ylabel("multiply-adds, 10⁹")
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, 17)
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.88))

    values = ", ".join(f"ResNet-{depth} {value:.1f}" for depth, value in zip(depths, lines[1][1], strict=True))
    alt = f"Bars of multiply-adds in billions at 224 x 224, with the paper's stride: {values}; VGG-16 has {_VGG16_GFLOPS}."
    return draw("complexity", "Multiply-adds of one image", paint, alt=alt)


def _record(fact: NetworkFacts, twin: int) -> dict[str, str | int | float | None]:
    return {
        "network": fact.spec.name,
        "parameters": fact.parameters,
        "plain_parameters": twin,
        "multiply_adds": fact.multiply_adds,
        "paper_stride_multiply_adds": fact.paper_stride_multiply_adds,
        "paper_figure": fact.paper_figure,
    }
