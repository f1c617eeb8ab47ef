"""Labels do not overlap, stay inside the chart, and stay near their points."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.measurement.report.frontchart import overlap, place_labels

FRAME = (0.0, 0.0, 500.0, 300.0)
_points = st.lists(st.tuples(st.floats(20, 480), st.floats(20, 280)), min_size=1, max_size=8)


@given(_points)
def test_up_to_eight_labels_never_overlap_or_leave_the_frame(points: list[tuple[float, float]]) -> None:
    """Wherever the points are, even all in one place."""
    boxes = place_labels(points, [(80.0, 11.0)] * len(points), [], FRAME)
    assert all(overlap(one, other) < 1e-6 for one, other in itertools.combinations(boxes, 2))
    for left, bottom, right, top in boxes:
        assert left >= -1e-6
        assert bottom >= -1e-6
        assert right <= 500 + 1e-6
        assert top <= 300 + 1e-6


@given(_points)
def test_labels_have_their_size_and_stay_near(points: list[tuple[float, float]]) -> None:
    """No box is stretched, and none is further away than the largest distance plus what moving into the frame adds."""
    for (x, y), (left, bottom, right, top) in zip(
        points, place_labels(points, [(80.0, 11.0)] * len(points), [], FRAME), strict=True
    ):
        assert abs(right - left - 80) < 1e-6
        assert abs(top - bottom - 11) < 1e-6
        away = max(left - x, x - right, bottom - y, y - top, 0.0)
        assert away <= 12 * 0.45 * 11 + 80 + 1e-6


def test_a_label_avoids_obstacles() -> None:
    """Where a line occupies the best place, another place is taken."""
    free = place_labels([(250.0, 150.0)], [(80.0, 11.0)], [], FRAME)[0]
    moved = place_labels([(250.0, 150.0)], [(80.0, 11.0)], [free], FRAME)[0]
    assert overlap(free, moved) == 0


def test_the_same_points_give_the_same_places() -> None:
    """In any order: a chart does not depend on the order of its data."""
    points = [(100.0, 100.0), (105.0, 103.0), (300.0, 90.0)]
    sizes = [(80.0, 11.0)] * 3
    straight, reverse = place_labels(points, sizes, [], FRAME), place_labels(points[::-1], sizes, [], FRAME)
    assert straight == reverse[::-1]


def test_no_points_no_labels() -> None:
    """An empty chart is no error."""
    assert place_labels([], [], [], FRAME) == []
