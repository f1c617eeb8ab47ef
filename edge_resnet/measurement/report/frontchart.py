"""The chart of top-1 against p90 latency, with 95 % intervals, dominated rows in grey, and labels that do not overlap.

``place_labels`` knows only points and boxes; everything else only rows and axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from edge_resnet.measurement.page.figure import DIMMED, INK, Chart, draw
from edge_resnet.measurement.report.format import ms, row_colour, row_marker
from edge_resnet.measurement.report.front import comparable_rows, dominated_by, pareto_front
from edge_resnet.measurement.report.record import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Box", "front_chart", "overlap", "place_labels", "scale_latency"]

#: Left, bottom, right, top, in points of print.
Box: TypeAlias = tuple[float, float, float, float]

#: Latencies that differ by more than this factor are drawn on a logarithmic axis.
_LOG_FROM = 8.0
#: Margin for labels beside the outermost points, as a share of the axis.
_MARGIN = 0.16

#: Distances of a label from its point in units of the smallest, and directions in eighths of a turn, the best first.
_DISTANCES = (1.0, 1.8, 3.0, 4.5, 6.5, 9.0, 12.0)
_DIRECTIONS = (1, 7, 3, 5, 2, 6, 0, 4)
#: Cost per area outside the frame, over another label, and over an obstacle.
_FRAME_COST, _LABEL_COST, _OBSTACLE_COST = 50.0, 20.0, 1.0
#: Cost of every label that is touched, and of leaving the frame at all, in units of the label's area.
_TOUCH_COST = 100.0
#: Areas up to this are rounding, not contact.
_ROUNDING = 1e-9
#: Cost of each further distance, in units of the label's area.
_DISTANCE_COST = 0.02


def front_chart(rows: Sequence[Row]) -> Chart | None:
    """Draw the chart; None where no row has both an accuracy and a latency."""
    known = comparable_rows(rows)
    if not known:
        return None
    front = pareto_front(rows)

    def paint(axes: Axes) -> None:
        for row in known:
            _draw_point(axes, row, rows, dimmed=dominated_by(row, rows) is not None)
        axes.plot(*_steps(front), color=INK, linewidth=1.2, alpha=0.6, zorder=2)
        _set_limits(axes, known)
        axes.set_xlabel("p90 latency of one image, ms (lower is better)")
        axes.set_ylabel("Top-1, %")
        _draw_labels(axes, known, {row.label for row in front})

    described = "; ".join(f"{row.label} {row.top1:.1f} % at {ms(row.p90_ms)} ms" for row in front)
    return draw("front", "Top-1 against p90 latency", paint, alt=f"Not dominated: {described}", size=(7.2, 4.6))


def scale_latency(axes: Axes, values: Sequence[float]) -> None:
    """Make the latency axis logarithmic where the values span a wide range; tick labels are plain numbers either way."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = min(values), max(values)
    if high / low > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def place_labels(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], obstacles: Sequence[Box], frame: Box
) -> list[Box]:
    """Place a label of each size (width, height) near its point, inside ``frame`` and clear of the others as far as possible.

    ``obstacles`` are what should stay visible. Labels are placed one after another, from left to right, each at its lowest cost,
    so the result does not depend on the order of ``points``.
    """
    gap = 0.45 * min((height for _, height in sizes), default=1.0)
    placed: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        choices = _candidates(points[index], sizes[index], gap)
        choices += [(rank + 1, _moved_inside(box, frame)) for rank, box in choices]
        others = list(placed.values())
        costs = [_cost(box, others, obstacles, frame) + _DISTANCE_COST * rank * _area(box) for rank, box in choices]
        placed[index] = choices[costs.index(min(costs))][1]
    return [placed[index] for index in range(len(points))]


def overlap(one: Box, other: Box) -> float:
    """The area that both boxes cover."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _draw_point(axes: Axes, row: Row, rows: Sequence[Row], *, dimmed: bool) -> None:
    assert row.accuracy is not None
    assert row.latency is not None
    (left, right), (low, high) = row.latency.metric.ci95, row.accuracy.ci95
    shade = DIMMED if dimmed else row_colour(row)
    width = 1.1 if dimmed else 1.7
    axes.plot([left, right], [row.top1] * 2, color=shade, linewidth=width, alpha=0.8, zorder=3)
    axes.plot([row.p90_ms] * 2, [low, high], color=shade, linewidth=width, alpha=0.8, zorder=3)
    axes.plot([row.p90_ms], [row.top1], marker=row_marker(row, rows), color=shade, markersize=6 if dimmed else 8.5, zorder=4)


def _steps(front: Sequence[Row]) -> tuple[list[float], list[float]]:
    """The front as steps: until the next row is fast enough, the one before it is the most accurate."""
    across, up = [front[0].p90_ms], [front[0].top1]
    for row in front[1:]:
        across += [row.p90_ms, row.p90_ms]
        up += [up[-1], row.top1]
    return across, up


def _set_limits(axes: Axes, known: Sequence[Row]) -> None:
    """Make the axes hold all intervals, with a margin for labels."""
    latencies = [bound for row in known if row.latency is not None for bound in (*row.latency.metric.ci95, row.p90_ms)]
    accuracies = [bound for row in known if row.accuracy is not None for bound in row.accuracy.ci95]
    scale_latency(axes, latencies)
    low, high = min(latencies), max(latencies)
    if axes.get_xscale() == "log":
        margin = (high / low) ** _MARGIN
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = max(_MARGIN * (high - low), 0.1 * high)
        axes.set_xlim(max(0.0, low - margin), high + margin)
    margin = max(0.04 * (max(accuracies) - min(accuracies)), 0.2)
    axes.set_ylim(max(0.0, min(accuracies) - margin), min(100.5, max(accuracies) + margin))


def _draw_labels(axes: Axes, known: Sequence[Row], front: set[str]) -> None:
    """Draw a label per row, placed in points of print so that SVG and PNG agree. ``front``: labels of the rows on the front."""
    figure: Any = axes.figure
    figure.draw_without_rendering()  # only the layout knows where the axes are
    renderer, to_print = figure.canvas.get_renderer(), 72 / figure.dpi
    points = [tuple(axes.transData.transform((row.p90_ms, row.top1)) * to_print) for row in known]
    texts = [
        axes.annotate(
            row.label,
            (row.p90_ms, row.top1),
            (0, 0),
            textcoords="offset points",
            fontsize=9,
            color=INK if row.label in front else DIMMED,
        )
        for row in known
    ]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = [(extent.width * to_print, extent.height * to_print) for extent in extents]
    frame: Box = tuple(axes.get_window_extent().extents * to_print)
    obstacles = [*_marker_boxes(axes, known, to_print), *_step_boxes(axes, known, to_print)]
    for text, point, box in zip(texts, points, place_labels(points, sizes, obstacles, frame), strict=True):
        text.set_position((box[0] - point[0], box[1] - point[1]))


def _marker_boxes(axes: Axes, known: Sequence[Row], to_print: float) -> list[Box]:
    """Boxes around the markers and their intervals, which labels should not cover."""
    found: list[Box] = []
    for row in known:
        assert row.accuracy is not None
        assert row.latency is not None
        (left, right), (low, high) = row.latency.metric.ci95, row.accuracy.ci95
        x0, y0 = axes.transData.transform((left, low)) * to_print
        x1, y1 = axes.transData.transform((right, high)) * to_print
        x, y = axes.transData.transform((row.p90_ms, row.top1)) * to_print
        found += [(x - 5, y - 5, x + 5, y + 5), (x0, y - 2, x1, y + 2), (x - 2, y0, x + 2, y1)]
    return found


def _step_boxes(axes: Axes, known: Sequence[Row], to_print: float) -> list[Box]:
    """Boxes around the steps of the front."""
    corners = [axes.transData.transform(corner) * to_print for corner in zip(*_steps(pareto_front(known)), strict=True)]
    return [(min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1) for a, b in pairwise(corners)]


def _candidates(point: tuple[float, float], size: tuple[float, float], gap: float) -> list[tuple[int, Box]]:
    """Boxes around the point, each with the rank of its distance: its nearest corner or edge touches a circle of that radius."""
    found = []
    for rank, distance in enumerate(_DISTANCES):
        for direction in _DIRECTIONS:
            dx, dy = math.cos(direction * math.pi / 4), math.sin(direction * math.pi / 4)
            left, bottom = (_edge(at, way, distance * gap, length) for at, way, length in zip(point, (dx, dy), size, strict=True))
            found.append((rank, (left, bottom, left + size[0], bottom + size[1])))
    return found


def _edge(at: float, direction: float, distance: float, size: float) -> float:
    """Where the box begins on one axis: centred where the direction is across the axis, else beside the point."""
    if abs(direction) < 0.1:
        return at - size / 2
    return at + direction * distance - (size if direction < 0 else 0.0)


def _moved_inside(box: Box, frame: Box) -> Box:
    """The box moved into the frame."""
    dx = max(0.0, frame[0] - box[0]) - max(0.0, box[2] - frame[2])
    dy = max(0.0, frame[1] - box[1]) - max(0.0, box[3] - frame[3])
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def _cost(box: Box, labels: Sequence[Box], obstacles: Sequence[Box], frame: Box) -> float:
    outside = _area(box) - overlap(box, frame)
    touched = [area for other in labels if (area := overlap(box, other)) > _ROUNDING]
    # Any contact costs more than every other cost together, so a free place always wins.
    contacts = len(touched) + (outside > _ROUNDING)
    covered = sum(overlap(box, other) for other in obstacles)
    return contacts * _TOUCH_COST * _area(box) + _FRAME_COST * outside + _LABEL_COST * sum(touched) + _OBSTACLE_COST * covered


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
