"""The charts of a report: front, latencies, what INT8 costs, classes. Knows records and axes, and no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_resnet.core.statistics import Difference, difference, percentile
from edge_resnet.measurement.page.figure import DIMMED, INK, SERIES, Chart, draw
from edge_resnet.measurement.report.format import colour, ms, signed
from edge_resnet.measurement.report.frontchart import front_chart, scale_latency
from edge_resnet.measurement.report.record import Pair, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["charts"]

_WIDTH, _MIN_HEIGHT, _PER_ROW = 7.2, 1.5, 0.46
#: Samples of a row drawn as dots.
_DOTS = 240
_CLASSES = 20


def charts(report: Report) -> list[Chart]:
    """Those that the report has the data for, the most important first."""
    found = [front_chart(report.rows), _latencies(report.rows), _costs(report.pairs)]
    found += [_classes(index, pair) for index, pair in enumerate(report.pairs)]
    return [chart for chart in found if chart is not None]


def _latencies(rows: Sequence[Row]) -> Chart | None:
    timed = sorted((row for row in rows if row.latency is not None), key=lambda row: -_p90(row))
    if not timed:
        return None
    samples = [_milliseconds(row) for row in timed]

    def paint(axes: Axes) -> None:
        for place, (row, values) in enumerate(zip(timed, samples, strict=True)):
            _distribution(axes, place, row, values)
        _rows(axes, [row.label for row in timed])
        axes.set_xlabel("Latency of one image, ms")
        scale_latency(axes, [value for values in samples for value in (values[0], percentile(values, 99))])

    spread = "; ".join(f"{row.label} {ms(_p90(row))} ms" for row in reversed(timed))
    return draw("latencies", "How long one image takes", paint, alt=f"p90 latency: {spread}", size=_size(len(timed)))


def _distribution(axes: Axes, place: int, row: Row, values: list[float]) -> None:
    """One row: every so-many-th query as a dot, quartiles as a bar, p90 and p99."""
    shade = colour(row)
    dots = values[:: max(1, len(values) // _DOTS)]
    # A fixed pattern that looks random enough: the golden ratio's multiples.
    heights = [place + 0.5 * ((index * 0.618034) % 1 - 0.5) for index in range(len(dots))]
    axes.plot(dots, heights, ".", color=shade, alpha=0.3, markersize=3, markeredgewidth=0, zorder=2)
    low, high, p90, p99 = (percentile(values, share) for share in (25, 75, 90, 99))
    axes.plot([low, high], [place, place], color=shade, linewidth=7, solid_capstyle="butt", alpha=0.75, zorder=3)
    axes.plot([high, p99], [place, place], color=shade, linewidth=1.2, zorder=3)
    axes.plot([p90], [place], marker="|", color=INK, markersize=13, markeredgewidth=2, zorder=4)


def _costs(pairs: Sequence[Pair]) -> Chart | None:
    """Points of top-1 that each INT8 row loses, with paired intervals."""
    known = [(pair, found) for pair in pairs if (found := _difference(pair)) is not None]
    if not known:
        return None

    def paint(axes: Axes) -> None:
        for place, (_, found) in enumerate(known):
            low, high = found.ci95
            shade = SERIES[1] if found.significant else DIMMED
            axes.plot([low, high], [place, place], color=shade, linewidth=2.5, solid_capstyle="butt")
            axes.plot([found.points], [place], marker="s", color=shade, markersize=7)
            axes.annotate(
                f"{signed(found.points)}", (found.points, place), (0, 8), textcoords="offset points", ha="center", fontsize=9
            )
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel("Points of top-1 lost, with 95 % intervals")
        _rows(axes, [pair.row for pair, _ in known])

    texts = "; ".join(f"{pair.row} {signed(found.points)} points" for pair, found in known)
    return draw("cost", "What lower precision costs", paint, alt=f"Top-1 lost: {texts}", size=_size(len(known)))


def _classes(index: int, pair: Pair) -> Chart | None:
    """The classes that changed most, where they have images enough to speak of a class."""
    known = [change for change in pair.classes if change.images > 1][:_CLASSES]
    if not known:
        return None
    known.sort(key=lambda change: change.after / change.images - change.before / change.images)

    def paint(axes: Axes) -> None:
        for place, change in enumerate(known):
            points = 100 * (change.after - change.before) / change.images
            axes.barh(place, points, height=0.62, color=SERIES[2] if points > 0 else SERIES[1])
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel(f"Change of a class's accuracy, points\nfrom {pair.reference} to {pair.row}")
        _rows(axes, [f"{change.name} ({change.images})" for change in known])

    alt = "; ".join(f"{change.name} {change.before} to {change.after} of {change.images}" for change in known)
    size = (_WIDTH, _MIN_HEIGHT + 0.24 * len(known))
    return draw(f"classes-{index + 1}", "Classes that changed most", paint, alt=alt, size=size)


def _difference(pair: Pair) -> Difference | None:
    """None without labels."""
    if pair.only_reference is None or pair.only_row is None:
        return None
    return difference(pair.only_reference, pair.only_row, pair.images)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Names at the left, one a row, and no rules between them."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _size(rows: int) -> tuple[float, float]:
    return _WIDTH, _MIN_HEIGHT + _PER_ROW * rows


def _milliseconds(row: Row) -> list[float]:
    """Its samples, ascending; the summary where the samples were not kept."""
    assert row.latency is not None
    result = row.latency
    return sorted(sample / 1e3 for sample in result.samples_us) or [result.p50_ms, result.p90_ms, result.p99_ms]


def _p90(row: Row) -> float:
    assert row.latency is not None
    return row.latency.p90_ms
