"""The front: top-1 against p90 latency, with 95 % intervals both ways, what is dominated dimmed, and labels that keep apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from edge_resnet.measurement.page.figure import DIMMED, INK, Chart, draw
from edge_resnet.measurement.report.format import colour, marker, ms
from edge_resnet.measurement.report.front import dominated, front, front_rows
from edge_resnet.measurement.report.record import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Box", "front_chart", "overlap", "place", "scale_latency"]

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


#: Left, bottom, right, top.
Box: TypeAlias = tuple[float, float, float, float]


#: Distances of a label from its point, in units of the smallest, and directions in eighths of a turn, the best first.
_DISTANCES = (1.0, 1.8, 3.0, 4.5, 6.5, 9.0, 12.0)


_DIRECTIONS = (1, 7, 3, 5, 2, 6, 0, 4)


#: What leaving the frame or covering another label costs beside covering a line, by area.
_FRAME, _LABEL, _OBSTACLE = 50.0, 20.0, 1.0


#: For each label that is touched, and for leaving the frame at all, in units of a label's area; and what counts as touching.
_BROKEN, _NOTHING = 100.0, 1e-9


#: What a step further away costs, in units of a label's area.
_AWAY = 0.02


def place(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], obstacles: Sequence[Box], frame: Box
) -> list[Box]:
    """A box of the wanted size (width, height) for each of ``points``, near it, inside ``frame`` and off the others as far as
    there is room.

    ``obstacles``: what should stay visible. One after another, each where it covers least: the leftmost first.
    """
    gap = 0.45 * min((height for _, height in sizes), default=1.0)
    placed: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        choices = _candidates(points[index], sizes[index], gap)
        choices += [(rank + 1, _inside(box, frame)) for rank, box in choices]
        costs = [_cost(box, list(placed.values()), obstacles, frame) + _AWAY * rank * _area(box) for rank, box in choices]
        placed[index] = choices[costs.index(min(costs))][1]
    return [placed[index] for index in range(len(points))]


def overlap(one: Box, other: Box) -> float:
    """Area that both cover."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _candidates(point: tuple[float, float], size: tuple[float, float], gap: float) -> list[tuple[int, Box]]:
    """Boxes around the point with their distance's rank: the corner or edge nearest to the point touches the circle."""
    found = []
    for rank, distance in enumerate(_DISTANCES):
        for direction in _DIRECTIONS:
            dx, dy = math.cos(direction * math.pi / 4), math.sin(direction * math.pi / 4)
            left, bottom = (_side(at, way, distance * gap, length) for at, way, length in zip(point, (dx, dy), size, strict=True))
            found.append((rank, (left, bottom, left + size[0], bottom + size[1])))
    return found


def _side(at: float, direction: float, distance: float, size: float) -> float:
    """Where the box begins on one axis: centred for a direction across it, else beside the point."""
    if abs(direction) < 0.1:
        return at - size / 2
    return at + direction * distance - (size if direction < 0 else 0.0)


def _inside(box: Box, frame: Box) -> Box:
    """The box, moved until the frame holds it."""
    dx = max(0.0, frame[0] - box[0]) - max(0.0, box[2] - frame[2])
    dy = max(0.0, frame[1] - box[1]) - max(0.0, box[3] - frame[3])
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def _cost(box: Box, labels: Sequence[Box], obstacles: Sequence[Box], frame: Box) -> float:
    outside = _area(box) - overlap(box, frame)
    touched = [area for other in labels if (area := overlap(box, other)) > _NOTHING]
    # A sliver counts as much as a part: whatever is free goes before whatever is not.
    broken = len(touched) + (outside > _NOTHING)
    covered = _OBSTACLE * sum(overlap(box, other) for other in obstacles)
    return broken * _BROKEN * _area(box) + _FRAME * outside + _LABEL * sum(touched) + covered


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
