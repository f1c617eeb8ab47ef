"""A report's conclusions: the summary in sentences, the two choices, and lower precision compared with FP32.

Does not know about HTML: it returns sentences and tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_resnet.measurement.page.html import Cell, Column, Table
from edge_resnet.measurement.page.html import Row as TableRow
from edge_resnet.measurement.report.format import describe_drop, ms, plural, points, signed, top1
from edge_resnet.measurement.report.front import (
    POINTS,
    BestAccuracy,
    Speedup,
    best_accuracy_under,
    comparable_rows,
    fastest_within,
    limits_ms,
    pareto_front,
    speedup,
)
from edge_resnet.measurement.report.record import Pair, Report, Row
from edge_resnet.measurement.report.table import results_of

__all__ = ["answer_lines", "fastest_table", "findings", "pair_table", "under_table"]

#: Share of the CPU used by other programs above which latencies cannot be relied on.
_BUSY = 0.1


def findings(report: Report) -> list[str]:
    """The summary, a sentence per finding, the most important first."""
    found: list[str] = []
    front = pareto_front(report.rows)
    if front:
        fastest, best = front[0], front[-1]
        found.append(f"Most accurate: {best.label}, {top1(best)} top-1 at {_p90(best)} p90.")
        if fastest is not best:
            found.append(f"Fastest: {fastest.label}, {_p90(fastest)} p90 at {top1(fastest)} top-1.")
    elif timed := [row for row in report.rows if row.latency is not None]:
        fastest = min(timed, key=lambda row: row.p90_ms)
        found.append(f"Fastest: {fastest.label}, {_p90(fastest)} p90. Accuracy was not measured.")
    found += [sentence for pair in report.pairs if (sentence := _pair_sentence(pair, report.rows))]
    busiest = max((result.conditions.others_share or 0.0 for _, result in results_of(report)), default=0.0)
    if busiest > _BUSY:
        found.append(
            f"Latencies are unreliable: other programs used up to {100 * busiest:.0f} % of the CPU during a measurement."
        )
    if report.holes:
        verb = "is" if len(report.holes) == 1 else "are"
        found.append(f"{plural(len(report.holes), 'requested result')} {verb} missing; the reasons are below.")
    return found


def answer_lines(report: Report, under_ms: float | None, within_points: float | None) -> list[str]:
    """The answers to the reader's two questions, a line each; empty where neither was asked."""
    lines = []
    if under_ms is not None:
        best = best_accuracy_under(under_ms, report.rows).row
        text = "no measured network is that fast" if best is None else f"{best.label}, {top1(best)} at {_p90(best)}"
        lines.append(f"The most accurate under {ms(under_ms)} ms: {text}.")
    if within_points is not None:
        fastest = fastest_within(within_points, report.rows)
        text = "no network has both an accuracy and a latency"
        if fastest is not None:
            text = f"{fastest.row.label}, {_p90(fastest.row)} at {top1(fastest.row)}"
            if fastest.certain is not fastest.row:
                text += f"; within its whole 95 % interval only {fastest.certain.label}, {_p90(fastest.certain)}"
        lines.append(f"The fastest within {points(within_points)} of the best: {text}.")
    return lines


def under_table(rows: Sequence[Row], asked_ms: float | None) -> Table | None:
    """The most accurate row for several latency limits, ``asked_ms`` among them; None where no row has both figures."""
    if not comparable_rows(rows):
        return None
    limits = sorted({*limits_ms(rows), *([] if asked_ms is None else [asked_ms])})
    columns = (Column("Limit of p90, ms", numeric=True), Column("Most accurate"), Column("Top-1", numeric=True),
               Column("p90, ms", numeric=True), Column("How certain"))  # fmt: skip
    lines = tuple(_under_row(best_accuracy_under(limit, rows)) for limit in limits)
    return Table("under", "The most accurate network for each latency limit", columns, lines)


def fastest_table(rows: Sequence[Row], asked_points: float | None) -> Table | None:
    """The fastest row for several losses of top-1, ``asked_points`` among them; None where no row has both figures."""
    allowed = sorted({*POINTS, *([] if asked_points is None else [asked_points])})
    choices = [choice for value in allowed if (choice := fastest_within(value, rows)) is not None]
    if not choices:
        return None
    lines = []
    for choice in choices:
        loss = "none: it is the most accurate" if choice.row is choice.best else describe_drop(choice.drop)
        certain = "the same" if choice.certain is choice.row else f"{choice.certain.label}, {_p90(choice.certain)}"
        lines.append(TableRow((f"{choice.points:g}", choice.row.label, _p90(choice.row), loss, certain)))
    columns = (Column("Allowed loss, points", numeric=True), Column("Fastest"), Column("p90", numeric=True), Column("Its loss"),
               Column("Certainly within", note="whole 95 % interval"))  # fmt: skip
    caption = f"The fastest network for each loss of top-1 from the most accurate, {choices[0].best.label}"
    return Table("within", caption, columns, tuple(lines))


def pair_table(report: Report) -> Table | None:
    """Each lower precision compared with FP32; None where the report has no pair."""
    if not report.pairs:
        return None
    columns = (Column("Network"), Column("Speedup", numeric=True), Column("Agreement", numeric=True),
               Column("Points lost", numeric=True), Column("p", numeric=True), Column("Verdict"))  # fmt: skip
    caption = "Each network compared with its FP32 version on the same images, with 95 % intervals."
    return Table("pairs", caption, columns, tuple(_pair_row(pair, report.rows) for pair in report.pairs))


def _under_row(choice: BestAccuracy) -> TableRow:
    limit = f"{choice.limit_ms:g}"
    if choice.row is None:
        return TableRow((limit, Cell("no network is that fast", tone="quiet"), "", "", ""), tone="quiet")
    return TableRow((limit, choice.row.label, top1(choice.row), ms(choice.row.p90_ms), _certainty(choice)))


def _certainty(choice: BestAccuracy) -> str:
    parts = [] if choice.limit_holds else ["the 95 % interval of its p90 exceeds the limit"]
    if choice.rivals:
        names = ", ".join(f"{rival.row.label} ({_p90(rival.row)})" for rival in choice.rivals)
        parts.append(f"no significant difference from {names}")
    return "; ".join(parts) or "significantly more accurate than any other under the limit"


def _pair_row(pair: Pair, rows: Sequence[Row]) -> TableRow:
    times = _speedup(pair, rows)
    faster = Cell("\N{EN DASH}")
    if times is not None:
        faster = Cell(f"{times.ratio:.2f} \N{MULTIPLICATION SIGN}", times.ratio, f"{times.low:.2f} to {times.high:.2f}")
    agreement = Cell(f"{pair.agreement:.1f} %", pair.agreement, f"{pair.flipped} of {pair.images} differ")
    loss = pair.loss
    if loss is None:
        return TableRow((pair.row, faster, agreement, Cell("no labels", tone="quiet"), "", ""))
    low, high = (signed(bound) for bound in loss.ci95)
    verdict = "no significant difference"
    if loss.significant:
        verdict = "less accurate" if loss.points > 0 else "more accurate"
    lost = Cell(signed(loss.points), loss.points, f"{low} to {high}")
    return TableRow((pair.row, faster, agreement, lost, f"{loss.p:.2g}", verdict))


def _pair_sentence(pair: Pair, rows: Sequence[Row]) -> str:
    """How much faster the lower precision is, and at what loss of accuracy; empty without latencies."""
    times = _speedup(pair, rows)
    if times is None:
        return ""
    loss = pair.loss
    speed = (
        f"{times.ratio:.2f} times as fast as FP32" if times.ratio >= 1 else f"slower than FP32 ({times.ratio:.2f} times as fast)"
    )
    if loss is None:
        return f"{pair.row} is {speed} and predicts the same class for {pair.agreement:.1f} % of {pair.images} images."
    low, high = (signed(bound) for bound in loss.ci95)
    change = "has the same top-1"
    if loss.points != 0:
        change = f"{'loses' if loss.points > 0 else 'gains'} {abs(loss.points):.1f} points of top-1"
    verdict = "significant" if loss.significant else "not significant"
    return f"{pair.row} is {speed} and {change} on {pair.images} images (95 % interval of the loss {low} to {high}, {verdict})."


def _speedup(pair: Pair, rows: Sequence[Row]) -> Speedup | None:
    by_label = {row.label: row for row in reversed(rows)}
    reference, row = by_label.get(pair.reference), by_label.get(pair.row)
    return None if reference is None or row is None else speedup(reference, row)


def _p90(row: Row) -> str:
    return f"{ms(row.p90_ms)} ms"
