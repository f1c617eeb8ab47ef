"""The front: top-1 against p90 latency, with 95 % intervals both ways, what is dominated dimmed, and labels that keep apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from edge_resnet.page.figure import Chart, draw
from edge_resnet.page.palette import DIMMED, INK
from edge_resnet.report.judge import dominated, front, front_rows
from edge_resnet.report.labels import Box, place
from edge_resnet.report.marks import colour, marker
from edge_resnet.report.record import Row
from edge_resnet.report.words import ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["front_chart", "scale_latency"]

#: Latencies that differ by more than this are drawn on a logarithmic axis.
_LOG_FROM = 8.0
#: Room for labels beside the outermost points, as a share of the axis.
_ROOM = 0.16


def front_chart(rows: Sequence[Row]) -> Chart | None:
    """None where no row has both an accuracy and a latency."""
    known = front_rows(rows)
    if not known:
        return None
    best = front(rows)

    def paint(axes: Axes) -> None:
        for row in known:
            _point(axes, row, rows, dimmed=dominated(row, rows) is not None)
        axes.plot(*_stairs(best), color=INK, linewidth=1.2, alpha=0.6, zorder=2)
        _limits(axes, known)
        axes.set_xlabel("p90 latency of one image, ms (less is better)")
        axes.set_ylabel("Top-1, %")
        _label(axes, known, {row.label for row in best})

    described = "; ".join(f"{row.label} {_top1(row):.1f} % at {ms(_p90(row))} ms" for row in best)
    return draw("front", "Top-1 against p90 latency", paint, alt=f"Not dominated: {described}", size=(7.2, 4.6))


def scale_latency(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where the latencies span much, with plain numbers on it either way."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = min(values), max(values)
    if high / low > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _point(axes: Axes, row: Row, rows: Sequence[Row], *, dimmed: bool) -> None:
    assert row.accuracy is not None
    assert row.latency is not None
    (left, right), (low, high) = row.latency.metric.ci95, row.accuracy.ci95
    shade = DIMMED if dimmed else colour(row)
    width = 1.1 if dimmed else 1.7
    axes.plot([left, right], [_top1(row)] * 2, color=shade, linewidth=width, alpha=0.8, zorder=3)
    axes.plot([_p90(row)] * 2, [low, high], color=shade, linewidth=width, alpha=0.8, zorder=3)
    axes.plot([_p90(row)], [_top1(row)], marker=marker(row, rows), color=shade, markersize=6 if dimmed else 8.5, zorder=4)


def _stairs(best: Sequence[Row]) -> tuple[list[float], list[float]]:
    """The front as steps: until the next row is fast enough, the one before is the most accurate."""
    across, up = [_p90(best[0])], [_top1(best[0])]
    for row in best[1:]:
        across += [_p90(row), _p90(row)]
        up += [up[-1], _top1(row)]
    return across, up


def _limits(axes: Axes, known: Sequence[Row]) -> None:
    """From the ends of all intervals, with room for labels."""
    latencies = [bound for row in known if row.latency is not None for bound in (*row.latency.metric.ci95, _p90(row))]
    accuracies = [bound for row in known if row.accuracy is not None for bound in row.accuracy.ci95]
    scale_latency(axes, latencies)
    low, high = min(latencies), max(latencies)
    if axes.get_xscale() == "log":
        room = (high / low) ** _ROOM
        axes.set_xlim(low / room, high * room)
    else:
        room = max(_ROOM * (high - low), 0.1 * high)
        axes.set_xlim(max(0.0, low - room), high + room)
    room = max(0.04 * (max(accuracies) - min(accuracies)), 0.2)
    axes.set_ylim(max(0.0, min(accuracies) - room), min(100.5, max(accuracies) + room))


def _label(axes: Axes, known: Sequence[Row], best: set[str]) -> None:
    """Texts beside the points, placed in points of print so that SVG and PNG agree."""
    figure: Any = axes.figure
    figure.draw_without_rendering()  # the layout decides where the axes are
    renderer, to_print = figure.canvas.get_renderer(), 72 / figure.dpi
    spots = [tuple(axes.transData.transform((_p90(row), _top1(row))) * to_print) for row in known]
    texts = [
        axes.annotate(row.label, (_p90(row), _top1(row)), (0, 0), textcoords="offset points", fontsize=9, color=_shade(row, best))
        for row in known
    ]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = [(extent.width * to_print, extent.height * to_print) for extent in extents]
    frame: Box = tuple(axes.get_window_extent().extents * to_print)
    boxes = place(spots, sizes, [*_obstacles(axes, known, to_print), *_treads(axes, known, to_print)], frame)
    for text, spot, box in zip(texts, spots, boxes, strict=True):
        text.set_position((box[0] - spot[0], box[1] - spot[1]))


def _shade(row: Row, best: set[str]) -> str:
    return INK if row.label in best else DIMMED


def _obstacles(axes: Axes, known: Sequence[Row], to_print: float) -> list[Box]:
    """Boxes in points of print that labels had better not cover: the points and their intervals."""
    found: list[Box] = []
    for row in known:
        assert row.accuracy is not None
        assert row.latency is not None
        (left, right), (low, high) = row.latency.metric.ci95, row.accuracy.ci95
        x0, y0 = axes.transData.transform((left, low)) * to_print
        x1, y1 = axes.transData.transform((right, high)) * to_print
        x, y = axes.transData.transform((_p90(row), _top1(row))) * to_print
        found += [(x - 5, y - 5, x + 5, y + 5), (x0, y - 2, x1, y + 2), (x - 2, y0, x + 2, y1)]
    return found


def _treads(axes: Axes, known: Sequence[Row], to_print: float) -> list[Box]:
    """The front's steps as boxes of that kind."""
    spots = [axes.transData.transform(spot) * to_print for spot in zip(*_stairs(front(known)), strict=True)]
    pairs = pairwise(spots)
    return [(min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1) for a, b in pairs]


def _p90(row: Row) -> float:
    assert row.latency is not None
    return row.latency.p90_ms


def _top1(row: Row) -> float:
    assert row.accuracy is not None
    return row.accuracy.top1
