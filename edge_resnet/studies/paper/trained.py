"""Trained networks side by side: a row each, and two of them compared in a sentence. Knows no experiment and trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from edge_resnet.measurement.page.figure import INK, MARKERS, SERIES, Chart, draw
from edge_resnet.studies.paper.result import Cell, Column, Table
from edge_resnet.studies.paper.tally import difference
from edge_resnet.studies.paper.training import Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["as_record", "compared", "curves", "trained_table"]


def compared(one: Trained, other: Trained) -> str:
    """How two finished networks' errors differ: training error of the last epoch, test error with its paired interval."""
    assert one.hits is not None
    assert other.hits is not None
    more = one.train_error - other.train_error
    apart = difference(one.hits, other.hits)
    return (
        f"{one.name}'s training error is {abs(more):.2f} points {'higher' if more > 0 else 'lower'} than {other.name}'s "
        f"({one.train_error:.2f} % against {other.train_error:.2f} %, last epoch, one run each); its test error differs by "
        f"{apart.points:+.2f} points (95 % interval {apart.ci95[0]:+.2f} to {apart.ci95[1]:+.2f} on {len(one.hits):,} images"
        f"{'' if apart.significant else ', no significant difference'})."
    )


def trained_table(caption: str, networks: Sequence[Trained], paper: Callable[[Trained], str | None]) -> Table:
    """A row per network; ``paper``: the test error that the paper prints for it."""
    columns = (
        Column("network", "network"),
        Column("parameters, 10⁶", "mparams", 3),
        Column("epochs", "epochs", 0),
        Column("training error, %", "train_error", 2),
        Column("test error, %", "test_error", 2),
        Column("the paper's, %", "paper_test_error"),
        Column("minutes", "minutes", 1),
    )
    rows: list[tuple[Cell, ...]] = [
        (n.name, n.parameters / 1e6, len(n.records), n.train_error, n.test_error, paper(n), n.seconds / 60) for n in networks
    ]
    return Table(f"Errors of the last epoch, ours of one crop. {caption}", columns, tuple(rows))


def as_record(network: Trained) -> dict[str, object]:
    """All of it for JSON, every epoch included."""
    return {
        "network": network.name,
        "depth": network.spec.depth,
        "plain": network.spec.plain,
        "shortcut": network.spec.shortcut,
        "parameters": network.parameters,
        "finished": network.finished,
        "stopped": network.stopped,
        "seconds": network.seconds,
        "curves": [asdict(record) for record in network.records],
    }


#: Above so many epochs a mark at each would hide the line.
_MARKED = 40


def curves(name: str, title: str, networks: Sequence[Trained], *, top: float | None = None) -> Chart:
    """Errors by iteration; ``top``: the upper end of the axis in percent, so that two charts can be read together."""

    def paint(axes: Axes) -> None:
        for place, network in enumerate(networks):
            color, mark = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            steps = [record.step for record in network.records]
            tested = [(record.step, record.test_error) for record in network.records if record.test_error is not None]
            few = mark if len(steps) <= _MARKED else ""
            axes.plot(steps, [r.train_error for r in network.records], color=color, linestyle="--", linewidth=1.2)
            axes.plot(*zip(*tested, strict=True), color=color, linewidth=2.4, marker=few, markersize=5, label=network.name)
        axes.plot([], [], color=INK, linestyle="--", linewidth=1.2, label="training")
        axes.plot([], [], color=INK, linewidth=2.4, label="test")
        axes.set_xlabel("iterations")
        axes.set_ylabel("error, %")
        axes.set_ylim(0, top)
        axes.legend()

    words = [f"{n.name} ends at {n.train_error:.2f} % in training, {_percent(n.test_error)} in the test" for n in networks]
    return draw(name, title, paint, alt=f"Training error (dashed) and test error (bold) by iteration. {'; '.join(words)}.")


def _percent(value: float | None) -> str:
    return "no figure" if value is None else f"{value:.2f} %"
