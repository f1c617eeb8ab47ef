"""Trained networks side by side: a table, two of them compared in a sentence, and error curves. Does not know the experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from edge_resnet.measurement.page.figure import INK, MARKERS, SERIES, Chart, draw
from edge_resnet.studies.paper.result import Cell, Column, Table
from edge_resnet.studies.paper.tally import error_difference, with_significance
from edge_resnet.studies.paper.training import TrainedNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["as_record", "compare", "error_curves", "trained_table"]

#: With more epochs than this, a marker for each would hide the line.
_MAX_MARKERS = 40


def compare(one: TrainedNetwork, other: TrainedNetwork) -> str:
    """Compare the errors of two finished networks: training error of the last epoch, test error with its paired interval."""
    assert one.hits is not None
    assert other.hits is not None
    gap = one.train_error - other.train_error
    return (
        f"{one.name}'s training error is {abs(gap):.2f} points {'higher' if gap > 0 else 'lower'} than {other.name}'s "
        f"({one.train_error:.2f} % against {other.train_error:.2f} %, last epoch, one run each). Its test error on "
        f"{len(one.hits):,} images differs by {with_significance(error_difference(one.hits, other.hits))}."
    )


def trained_table(caption: str, networks: Sequence[TrainedNetwork], paper: Callable[[TrainedNetwork], str | None]) -> Table:
    """A row per network. ``paper`` gives the test error that the paper prints for it."""
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
    return Table(f"Errors of the last epoch, ours on one crop. {caption}", columns, tuple(rows))


def as_record(network: TrainedNetwork) -> dict[str, object]:
    """The training for JSON, with every epoch."""
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


def error_curves(name: str, title: str, networks: Sequence[TrainedNetwork], *, top: float | None = None) -> Chart:
    """Training and test errors by iteration. ``top``: the upper end of the axis in percent, to compare two charts."""

    def paint(axes: Axes) -> None:
        for place, network in enumerate(networks):
            color, mark = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            steps = [record.step for record in network.records]
            tested = [(record.step, record.test_error) for record in network.records if record.test_error is not None]
            marker = mark if len(steps) <= _MAX_MARKERS else ""
            axes.plot(steps, [r.train_error for r in network.records], color=color, linestyle="--", linewidth=1.2)
            axes.plot(*zip(*tested, strict=True), color=color, linewidth=2.4, marker=marker, markersize=5, label=network.name)
        axes.plot([], [], color=INK, linestyle="--", linewidth=1.2, label="training")
        axes.plot([], [], color=INK, linewidth=2.4, label="test")
        axes.set_xlabel("iterations")
        axes.set_ylabel("error, %")
        axes.set_ylim(0, top)
        axes.legend()

    ends = [f"{n.name} ends at {n.train_error:.2f} % in training, {_percent(n.test_error)} in the test" for n in networks]
    return draw(name, title, paint, alt=f"Training error (dashed) and test error (bold) by iteration. {'; '.join(ends)}.")


def _percent(value: float | None) -> str:
    return "not tested" if value is None else f"{value:.2f} %"
