"""The charts of a report: accuracy against latency, latencies, the cost of lower precision, classes. Does not write files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_resnet.core.statistics import percentile
from edge_resnet.measurement.page.figure import DIMMED, INK, SERIES, Chart, draw
from edge_resnet.measurement.report.format import ms, row_colour, signed
from edge_resnet.measurement.report.frontchart import front_chart, scale_latency
from edge_resnet.measurement.report.record import Pair, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["charts"]

_WIDTH, _MIN_HEIGHT, _PER_ROW, _PER_CLASS = 7.2, 1.5, 0.46, 0.24
#: Queries of a row that are drawn as dots.
_DOTS = 240
_MAX_CLASSES = 20


def charts(report: Report) -> list[Chart]:
    """The charts that the report has data for, the most important first."""
    found = [front_chart(report.rows), _latency_chart(report.rows), _cost_chart(report.pairs)]
    found += [_class_chart(f"classes-{number}", pair) for number, pair in enumerate(report.pairs, 1)]
    return [chart for chart in found if chart is not None]


def _latency_chart(rows: Sequence[Row]) -> Chart | None:
    timed = sorted((row for row in rows if row.latency is not None), key=lambda row: -row.p90_ms)
    if not timed:
        return None
    samples = [_milliseconds(row) for row in timed]

    def paint(axes: Axes) -> None:
        for place, (row, values) in enumerate(zip(timed, samples, strict=True)):
            _distribution(axes, place, row, values)
        _label_rows(axes, [row.label for row in timed])
        axes.set_xlabel("Latency of one image, ms")
        scale_latency(axes, [value for values in samples for value in (values[0], percentile(values, 99))])

    described = "; ".join(f"{row.label} {ms(row.p90_ms)} ms" for row in reversed(timed))
    return draw("latencies", "Latency of one image", paint, alt=f"p90 latency: {described}", size=_size(len(timed)))


def _distribution(axes: Axes, place: int, row: Row, values: list[float]) -> None:
    """One row: a sample of the queries as dots, the quartiles as a bar, p90 as a mark and a line up to p99."""
    shade = row_colour(row)
    dots = values[:: max(1, len(values) // _DOTS)]
    # Multiples of the golden ratio scatter evenly, and give the same chart every time.
    heights = [place + 0.5 * ((index * 0.618034) % 1 - 0.5) for index in range(len(dots))]
    axes.plot(dots, heights, ".", color=shade, alpha=0.3, markersize=3, markeredgewidth=0, zorder=2)
    low, high, p90, p99 = (percentile(values, share) for share in (25, 75, 90, 99))
    axes.plot([low, high], [place, place], color=shade, linewidth=7, solid_capstyle="butt", alpha=0.75, zorder=3)
    axes.plot([high, p99], [place, place], color=shade, linewidth=1.2, zorder=3)
    axes.plot([p90], [place], marker="|", color=INK, markersize=13, markeredgewidth=2, zorder=4)


def _cost_chart(pairs: Sequence[Pair]) -> Chart | None:
    """Points of top-1 that each lower precision loses, with paired intervals."""
    known = [(pair, loss) for pair in pairs if (loss := pair.loss) is not None]
    if not known:
        return None

    def paint(axes: Axes) -> None:
        for place, (_, loss) in enumerate(known):
            low, high = loss.ci95
            shade = SERIES[1] if loss.significant else DIMMED
            axes.plot([low, high], [place, place], color=shade, linewidth=2.5, solid_capstyle="butt")
            axes.plot([loss.points], [place], marker="s", color=shade, markersize=7)
            axes.annotate(signed(loss.points), (loss.points, place), (0, 8), textcoords="offset points", ha="center", fontsize=9)
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel("Points of top-1 lost, with 95 % intervals")
        _label_rows(axes, [pair.row for pair, _ in known])

    described = "; ".join(f"{pair.row} {signed(loss.points)} points" for pair, loss in known)
    return draw("cost", "Accuracy lost by lower precision", paint, alt=f"Top-1 lost: {described}", size=_size(len(known)))


def _class_chart(name: str, pair: Pair) -> Chart | None:
    """The classes whose accuracy changed most; classes with a single image are left out."""
    known = [change for change in pair.classes if change.images > 1][:_MAX_CLASSES]
    if not known:
        return None
    known.sort(key=lambda change: change.after / change.images - change.before / change.images)

    def paint(axes: Axes) -> None:
        for place, change in enumerate(known):
            points = 100 * (change.after - change.before) / change.images
            axes.barh(place, points, height=0.62, color=SERIES[2] if points > 0 else SERIES[1])
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel(f"Change of the class's accuracy, points\nfrom {pair.reference} to {pair.row}")
        _label_rows(axes, [f"{change.name} ({change.images})" for change in known])

    alt = "; ".join(f"{change.name} {change.before} to {change.after} of {change.images}" for change in known)
    size = (_WIDTH, _MIN_HEIGHT + _PER_CLASS * len(known))
    return draw(name, "Classes with the largest change", paint, alt=alt, size=size)


def _label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Labels at the left, one per row, without grid lines between the rows."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _size(rows: int) -> tuple[float, float]:
    return _WIDTH, _MIN_HEIGHT + _PER_ROW * rows


def _milliseconds(row: Row) -> list[float]:
    """The row's samples in ascending order; its percentiles where the samples were not kept."""
    assert row.latency is not None
    result = row.latency
    return sorted(sample / 1e3 for sample in result.samples_us) or [result.p50_ms, result.p90_ms, result.p99_ms]
