"""The charts of an evaluation's details: the confusion matrix and the reliability diagram. Writes no files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_resnet.measurement.details.record import Details
from edge_resnet.measurement.page.figure import DIMMED, INK, SERIES, Chart, draw
from edge_resnet.measurement.reliability import BINS, Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MAX_CLASSES", "confusion_chart", "drawn_classes", "reliability_chart"]

#: More rows than this cannot be read: then the classes of the worst pairs are drawn.
MAX_CLASSES = 30
_SIDE, _MARGIN, _LABEL = 0.34, 2.2, 22
#: Shares up to this many classes are printed into their cells.
_PRINTED = 16


def drawn_classes(details: Details) -> tuple[int, ...]:
    """The classes in the chart, by index: those that occur, or, where these are too many, those of the worst pairs."""
    present = {index for true, said, _ in details.confusion for index in (true, said)}
    if len(present) <= MAX_CLASSES:
        return tuple(sorted(present))
    return tuple(sorted({index for pair in details.pairs for index in (pair.true, pair.predicted)}))


def confusion_chart(details: Details) -> Chart:
    """Rows are the true classes, columns the answers; a cell's colour is its share of the row."""
    chosen = drawn_classes(details)
    place = {index: position for position, index in enumerate(chosen)}
    shares = np.zeros((len(chosen), len(chosen)))
    for true, said, count in details.confusion:
        if true in place and said in place:
            shares[place[true], place[said]] = 100 * count / max(1, details.classes[true].images)
    names = [_short(details.classes[index].label) for index in chosen]

    def paint(axes: Axes) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes.grid(visible=False)
        shades = LinearSegmentedColormap.from_list("share", ["#ffffff", SERIES[0]])
        # The root shows the few percent of a confusion beside the many of the diagonal.
        axes.pcolormesh(np.sqrt(shares / 100), cmap=shades, vmin=0, vmax=1, edgecolors="#d9dfdc", linewidth=0.5)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        for row, column in zip(*np.nonzero(shares >= 0.05), strict=True) if len(chosen) <= _PRINTED else ():
            value = shares[row, column]
            text = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5, color="#101513")
        ticks = np.arange(len(chosen)) + 0.5
        axes.set_xticks(ticks, names, rotation=90)
        axes.set_yticks(ticks, names)
        axes.tick_params(length=0)
        axes.set_xlabel("Answer")
        axes.set_ylabel("True class")

    side = _MARGIN + _SIDE * max(8, len(chosen))
    part = "" if len(chosen) == len({true for true, _, _ in details.confusion}) else ", classes of the worst pairs"
    worst = "; ".join(f"{pair.true_label} as {pair.predicted_label} {pair.share:.1f} %" for pair in details.pairs[:3])
    alt = f"Confusion matrix in percent of each true class{part}. Most frequent confusions: {worst or 'none'}"
    return draw("confusion", "Percent of each true class by answer", paint, alt=alt, size=(side, side))


def reliability_chart(details: Details) -> Chart:
    """The share of right answers over their probability, with Wilson's intervals and the number of images."""
    curves = [(details.reliability, SERIES[0], "as a run gives it")]
    if details.untempered is not None:
        curves.append((details.untempered, SERIES[1], "without temperature"))

    def paint(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=DIMMED, linewidth=1, linestyle="--", zorder=1)
        for number, (curve, shade, name) in enumerate(curves):
            _curve(axes, curve, shade, f"{name}: ECE {curve.ece:.2f} points", first=number == 0)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("Probability of the answer, %")
        axes.set_ylabel("Right answers, %")
        axes.legend(loc="upper left")

    alt = "; ".join(f"{name}: mean probability {c.confidence:.1f} %, right {c.accuracy:.1f} %" for c, _, name in curves)
    return draw("reliability", "How often an answer is right, by its probability", paint, alt=alt)


def _curve(axes: Axes, curve: Reliability, shade: str, label: str, *, first: bool) -> None:
    """A curve with intervals; the counts of the first one stand at the lower edge."""
    filled = [
        (bin_.confidence, bin_.accuracy, bin_.ci95)
        for bin_ in curve.bins
        if bin_.confidence is not None and bin_.accuracy is not None and bin_.ci95 is not None
    ]
    xs = [confidence for confidence, _, _ in filled]
    ys = [accuracy for _, accuracy, _ in filled]
    errors = [[y - low for _, y, (low, _) in filled], [high - y for _, y, (_, high) in filled]]
    if first:
        axes.errorbar(xs, ys, yerr=np.maximum(errors, 0), fmt="o-", color=shade, capsize=2, markersize=4, label=label, zorder=3)
        for bin_ in curve.bins:
            axes.text(bin_.low + 50 / BINS, 1.5, f"{bin_.images}", ha="center", fontsize=7, color=INK, zorder=4)
    else:
        axes.plot(xs, ys, "s--", color=shade, markersize=3.5, linewidth=1, label=label, zorder=2)


def _short(label: str) -> str:
    first = label.split(",")[0]
    return first if len(first) <= _LABEL else first[: _LABEL - 1] + "…"
