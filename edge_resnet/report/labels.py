"""Where the labels of points go, so that none covers another, a point or an edge. Knows rectangles alone: no chart, no unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["Box", "overlap", "place"]

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
