"""Figures of a row from its classes and costs, and rows as a table for the terminal and in Markdown. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edge_resnet.core.statistics import mcnemar_exact, wilson_interval
from peers.networks import Ints
from peers.tools import Measured

__all__ = ["HEADER", "accuracy", "cost", "line", "markdown"]

HEADER = (
    f"{'network':<9} {'tool':<23} {'top-1 %':>7} {'':16} {'as FP32 %':>9} {'':16} {'ours/its':>9} {'p':>6} "
    f"{'s':>7} {'cpu s':>7} {'MiB':>6}  pairs"
)


def accuracy(classes: Ints, labels: Ints, reference: Ints, ours: Ints | None = None) -> dict[str, Any]:
    """Shares in percent with their intervals, of (N,) classes each.

    ``reference``: FP32's classes. ``ours``: with them the row is compared by image: how many of FP32's classes only ours kept,
    how many only this row, and McNemar's p.
    """
    same, count = classes == reference, len(labels)
    row: dict[str, Any] = {"images": count}
    for name, hits in (("top1", int((classes == labels).sum())), ("agreement", int(same.sum()))):
        low, high = wilson_interval(hits, count)
        row |= {name: 100 * hits / count, f"{name}_ci95": [100 * low, 100 * high]}
    if ours is not None:
        same_ours = ours == reference
        only_ours, only_this = int((same_ours & ~same).sum()), int((same & ~same_ours).sum())
        row |= {"only_ours": only_ours, "only_this": only_this, "p": mcnemar_exact(only_ours, only_this)}
    return row


def cost(measured: list[Measured]) -> dict[str, Any]:
    """Over the folds: mean seconds of wall and processor, largest memory and load, fewest cores; the first fold's pairs."""
    return {
        "seconds": sum(result.seconds for result in measured) / len(measured),
        "cpu_seconds": sum(result.cpu_seconds for result in measured) / len(measured),
        "peak_mib": max(result.peak_mib for result in measured),
        "load": max(result.load for result in measured),
        "cores": min(result.cores for result in measured),
        "pairs": [measured[0].activations, measured[0].weights],
        "note": ", ".join(dict.fromkeys(result.note for result in measured if result.note)),
    }


def line(row: dict[str, Any]) -> str:
    """The row for the terminal."""
    text = f"{row['network']:<9} {row['tool']:<23}"
    for name, width in (("top1", 7), ("agreement", 9)):
        if name in row:
            low, high = row[f"{name}_ci95"]
            text += f" {row[name]:>{width}.2f} [{low:6.2f}, {high:6.2f}]"
    if "seconds" in row:
        paired = f"{row['only_ours']:>4}/{row['only_this']:<4} {row['p']:6.3f}" if "p" in row else f"{'':16}"
        text += f" {paired} {row['seconds']:7.1f} {row['cpu_seconds']:7.1f} {row['peak_mib']:6.0f}"
        text += f"  {row['pairs'][0]}/{row['pairs'][1]}"
    return f"{text}  {row.get('note', '')}".rstrip()


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """A table per network; rows that were not measured say so."""
    by_network: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_network.setdefault(row["network"], []).append(row)
    return "\n".join(_table(name, found) for name, found in by_network.items())


def _table(network: str, rows: list[dict[str, Any]]) -> str:
    images = next((row["images"] for row in rows if "images" in row), 0)
    head = ["tool", "top-1 %", "as FP32 % [95 %]", "only ours / only it", "p", "s", "processor s", "MiB", "note"]
    lines = [f"### {network}, {images:,} held-out images", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row["tool"], "", "", "", "", "", "", "", row.get("note", "")]
        if "top1" in row:
            low, high = row["agreement_ci95"]
            cells[1:3] = [f"{row['top1']:.2f}", f"{row['agreement']:.2f} [{low:.2f}, {high:.2f}]"]
        if "p" in row:
            cells[3:5] = [f"{row['only_ours']} / {row['only_this']}", "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"]
        if "seconds" in row:
            cells[5:8] = [f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['peak_mib']:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
