"""The report in sentences and small tables: what came out, and the two answers. Knows records and words, no page."""

from __future__ import annotations

from collections.abc import Sequence

from edge_resnet.core.statistics import Difference, difference
from edge_resnet.measurement.page.html import Cell, Column, Table
from edge_resnet.measurement.page.html import Row as TableRow
from edge_resnet.measurement.report.format import ms, plural, points, signed, told, top1
from edge_resnet.measurement.report.front import (
    POINTS,
    fastest_within,
    front,
    front_rows,
    limits_ms,
    most_accurate_under,
    speedup,
)
from edge_resnet.measurement.report.record import Pair, Report, Row
from edge_resnet.measurement.report.table import results_of

__all__ = ["answer_lines", "fastest_table", "findings", "pair_table", "under_table"]


#: Of the cores, taken by others: more makes a latency another one.
_BUSY = 0.1


def findings(report: Report) -> list[str]:
    """What a reader in a hurry must know, a sentence each, the most important first."""
    found: list[str] = []
    best = front(report.rows)
    if best:
        most, fast = best[-1], best[0]
        found.append(f"Most accurate: {most.label}, {top1(most)} top-1 at {_p90(most)} p90.")
        if fast is not most:
            found.append(f"Fastest: {fast.label}, {_p90(fast)} p90 at {top1(fast)} top-1.")
    elif timed := [row for row in report.rows if row.latency is not None]:
        quickest = min(timed, key=lambda row: row.latency.p90_ms if row.latency else 0.0)
        found.append(f"Fastest: {quickest.label}, {_p90(quickest)} p90. Nothing is said of accuracy: it was not measured.")
    found += [sentence for pair in report.pairs if (sentence := _of_pair(pair, report.rows))]
    busiest = max((result.conditions.others_share or 0.0 for _, result in results_of(report)), default=0.0)
    if busiest > _BUSY:
        found.append(f"Latencies are doubtful: other programs took up to {100 * busiest:.0f} % of the cores meanwhile.")
    if report.holes:
        found.append(f"{plural(len(report.holes), 'measurement')} that {'was' if len(report.holes) == 1 else 'were'} asked for "
                     "could not be made; the reasons are below.")  # fmt: skip
    return found


def answer_lines(report: Report, under_ms: float | None, within_points: float | None) -> list[str]:
    """The answers to the two questions as they were asked, a line each; none where nothing was asked."""
    lines = []
    if under_ms is not None:
        chosen = most_accurate_under(under_ms, report.rows)
        text = "nothing that was measured is that fast"
        if chosen.row is not None:
            text = f"{chosen.row.label}, {top1(chosen.row)} at {_p90(chosen.row)}"
        lines.append(f"The most accurate under {ms(under_ms)} ms: {text}.")
    if within_points is not None:
        fastest = fastest_within(within_points, report.rows)
        text = "no row has both accuracy and latency"
        if fastest is not None:
            text = f"{fastest.row.label}, {_p90(fastest.row)} at {top1(fastest.row)}{_sureness(fastest.sure, fastest.row)}"
        lines.append(f"The fastest within {points(within_points)} of the best: {text}.")
    return lines


def under_table(rows: Sequence[Row], asked: float | None) -> Table | None:
    """The most accurate under several limits, the one asked for among them; None where nothing has both figures."""
    limits = sorted({*limits_ms(rows), *([] if asked is None else [asked])})
    if not front_rows(rows):
        return None
    columns = (Column("p90 under, ms", numeric=True), Column("Most accurate"), Column("Top-1", numeric=True),
               Column("Its p90, ms", numeric=True), Column("How sure"))  # fmt: skip
    return Table("under", "The most accurate under so many milliseconds", columns, tuple(_under(rows, limit) for limit in limits))


def fastest_table(rows: Sequence[Row], asked: float | None) -> Table | None:
    """The fastest within so many points of the most accurate; None where nothing has both figures."""
    found = [fastest_within(value, rows) for value in sorted({*POINTS, *([] if asked is None else [asked])})]
    lines = []
    for choice in found:
        if choice is None:
            return None
        loss = "the best itself" if choice.row is choice.best else told(choice.drop)
        sure = "the same" if choice.sure is choice.row else f"{choice.sure.label}, {_p90(choice.sure)}"
        lines.append(TableRow((f"{choice.points:g}", choice.row.label, _p90(choice.row), loss, sure)))
    best = found[0].best if found and found[0] else rows[0]
    columns = (Column("Points", numeric=True), Column("Fastest"), Column("Its p90", numeric=True), Column("Below the best"),
               Column("Surely within", note="whole 95 % interval"))  # fmt: skip
    return Table("within", f"The fastest within so many points of the most accurate, {best.label}", columns, tuple(lines))


def pair_table(report: Report) -> Table | None:
    """Lower precision beside FP32; None where there is no pair."""
    if not report.pairs:
        return None
    columns = (Column("Network"), Column("Faster", numeric=True), Column("Same answer", numeric=True),
               Column("Points lost", numeric=True), Column("p", numeric=True), Column("Verdict"))  # fmt: skip
    return Table("pairs", "On the same images, beside the same network in FP32, with 95 % intervals.", columns,
                 tuple(_pair(pair, report.rows) for pair in report.pairs))  # fmt: skip


def _under(rows: Sequence[Row], limit: float) -> TableRow:
    choice = most_accurate_under(limit, rows)
    if choice.row is None:
        return TableRow((f"{limit:g}", Cell("nothing is that fast", tone="quiet"), "", "", ""), tone="quiet")
    return TableRow(
        (
            f"{limit:g}",
            choice.row.label,
            top1(choice.row),
            _p90(choice.row).removesuffix(" ms"),
            _how_sure(choice.holds, choice.level),
        )
    )


def _how_sure(holds: bool, level: Sequence[tuple[Row, Difference | None]]) -> str:
    parts = [] if holds else ["its p90 is under, the upper end of its interval is not"]
    if level:
        names = ", ".join(row.label for row, _ in level)
        faster = level[0][0]
        parts.append(
            f"not told apart from {names}"
            + (f"; {faster.label} takes {_p90(faster)}" if len(level) > 1 else f", which takes {_p90(faster)}")
        )
    return "; ".join(parts) or "more accurate than all others that fast"


def _pair(pair: Pair, rows: Sequence[Row]) -> TableRow:
    before, after = _named(pair.reference, rows), _named(pair.row, rows)
    times = None if before is None or after is None else speedup(before, after)
    agreement = Cell(f"{pair.agreement:.1f} %", pair.agreement, f"{plural(pair.flipped, 'image')} of {pair.images} differ")
    faster = (
        Cell("\N{EN DASH}")
        if times is None
        else Cell(f"{times[0]:.2f} \N{MULTIPLICATION SIGN}", times[0], f"{times[1]:.2f} to {times[2]:.2f}")
    )
    found = _loss(pair)
    if found is None:
        return TableRow((pair.row, faster, agreement, Cell("no labels", tone="quiet"), "", ""))
    low, high = (signed(bound) for bound in found.ci95)
    verdict = (
        "less accurate" if found.significant and found.points > 0 else "more accurate" if found.significant else "not told apart"
    )
    return TableRow(
        (pair.row, faster, agreement, Cell(signed(found.points), found.points, f"{low} to {high}"), f"{found.p:.2g}", verdict)
    )


def _of_pair(pair: Pair, rows: Sequence[Row]) -> str:
    """How much faster, and at what cost."""
    before, after = _named(pair.reference, rows), _named(pair.row, rows)
    times = None if before is None or after is None else speedup(before, after)
    found = _loss(pair)
    if times is None or after is None:
        return ""
    speed = f"{times[0]:.2f} times as fast as FP32" if times[0] >= 1 else f"slower than FP32 ({times[0]:.2f} times as fast)"
    if found is None:
        return f"{after.label} is {speed} and gives the same answer on {pair.agreement:.1f} % of {pair.images} images."
    low, high = (signed(bound) for bound in found.ci95)
    if found.points == 0:
        cost = "is as accurate on"
    else:
        cost = f"{'loses' if found.points > 0 else 'gains'} {abs(found.points):.1f} points of top-1 on"
    verdict = "more than chance" if found.significant else "no more than chance may do"
    return f"{after.label} is {speed} and {cost} {pair.images} images (loss {low} to {high} with 95 %: {verdict})."


def _loss(pair: Pair) -> Difference | None:
    if pair.only_reference is None or pair.only_row is None:
        return None
    return difference(pair.only_reference, pair.only_row, pair.images)


def _sureness(sure: Row, row: Row) -> str:
    return "" if sure is row else f"; with its whole 95 % interval only {sure.label}, {_p90(sure)}"


def _named(label: str, rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.label == label), None)


def _p90(row: Row) -> str:
    assert row.latency is not None
    return f"{ms(row.latency.p90_ms)} ms"
