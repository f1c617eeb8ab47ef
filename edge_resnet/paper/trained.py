"""Trained networks side by side: a row each, and two of them compared in a sentence. Knows no experiment and trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from edge_resnet.paper.accuracy import difference
from edge_resnet.paper.finding import Cell, Column, Table
from edge_resnet.paper.training import Trained

__all__ = ["as_record", "compared", "trained_table"]


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
        f"{'' if apart.told_apart else ', not told apart'})."
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
