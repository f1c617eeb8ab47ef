"""Writes a report: JSON, CSV, Markdown, a self-contained HTML page, and the charts. Does not decide what they say."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.core.errors import MissingDependencyError
from edge_resnet.core.files import write_whole
from edge_resnet.measurement.page.figure import Chart, save
from edge_resnet.measurement.page.html import Table, render
from edge_resnet.measurement.report.advice import answer_lines, fastest_table, findings, pair_table, under_table
from edge_resnet.measurement.report.charts import charts
from edge_resnet.measurement.report.record import Report, to_json
from edge_resnet.measurement.report.table import caveats_of, environment, main_table, to_csv, to_markdown

__all__ = ["PAGE", "Questions", "check_drawable", "write_report"]

#: The page's name in the report's folder.
PAGE = "report.html"


@dataclass(frozen=True)
class Questions:
    """The reader's questions: the most accurate under ``under_ms``, and the fastest within ``within_points`` of the best."""

    under_ms: float | None = None
    within_points: float | None = None


def check_drawable() -> None:
    """Raise MissingDependencyError where no page could be drawn, so that it is known before minutes of measuring."""
    for package in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"a report needs {package}", hint="pip install 'edge-resnet[report]'")


def write_report(report: Report, folder: Path, questions: Questions | None = None) -> Path:
    """Write ``report.json``, ``.csv``, ``.md`` and ``.html``, and each chart as SVG and PNG. Returns the page's path.

    Each file is written atomically. Raises BuildError, and MissingDependencyError without matplotlib or jinja2; by then the
    measurements are safe, because JSON and CSV are written first.
    """
    asked = questions or Questions()
    write_whole(folder / "report.json", to_json(report).encode())
    write_whole(folder / "report.csv", to_csv(report).encode())
    drawn = charts(report)
    for chart in drawn:
        save(chart, folder)
    write_whole(folder / "report.md", _markdown(report, asked, drawn).encode())
    page = folder / PAGE
    write_whole(page, _page(report, asked, drawn).encode())
    return page


def _page(report: Report, asked: Questions, drawn: Sequence[Chart]) -> str:
    by_name = {chart.name: chart for chart in drawn}
    return render(
        "report.html",
        "edge_resnet.measurement.report",
        title=report.title,
        report=report,
        findings=findings(report),
        answers=answer_lines(report, asked.under_ms, asked.within_points),
        under=under_table(report.rows, asked.under_ms),
        within=fastest_table(report.rows, asked.within_points),
        table=main_table(report),
        pairs=pair_table(report),
        environment=environment(report),
        warnings=caveats_of(report),
        charts=by_name,
    )


def _markdown(report: Report, asked: Questions, drawn: Sequence[Chart]) -> str:
    parts = [f"# {report.title}", _when(report)]
    parts += ["\n".join(f"- {line}" for line in (*answer_lines(report, asked.under_ms, asked.within_points), *findings(report)))]
    parts += [f"![{chart.alt}]({chart.name}.svg)" for chart in drawn if chart.name == "front"]
    tables = (
        ("Which network to choose", under_table(report.rows, asked.under_ms)),
        ("", fastest_table(report.rows, asked.within_points)),
        ("All measurements", main_table(report)),
        ("Lower precision compared with FP32", pair_table(report)),
    )
    for heading, table in tables:
        parts += _section(heading, table)
    parts += [f"![{chart.alt}]({chart.name}.svg)" for chart in drawn if chart.name != "front"]
    if report.holes:
        parts += ["## Not measured", "\n".join(f"- {missing.what}: {missing.reason}" for missing in report.holes)]
    parts += ["## How it was measured", "\n".join(f"- {name}: {value}" for name, value in environment(report))]
    parts += ["\n".join(f"- {line}" for line in caveats_of(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _when(report: Report) -> str:
    part = " The report was interrupted: it holds what was measured until then." if report.interrupted else ""
    return f"Measured {report.created}.{part}"


def _section(heading: str, table: Table | None) -> list[str]:
    if table is None:
        return []
    return [*([f"## {heading}"] if heading else []), table.caption, to_markdown(table)]
