"""The folder that an experiment writes: claimed before any work, filled whole file by whole file. Knows no experiment."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_resnet.core import __version__
from edge_resnet.core.errors import BuildError, ConfigError, DataError
from edge_resnet.core.files import write_whole
from edge_resnet.measurement.page.figure import save
from edge_resnet.measurement.page.html import Cell, Column, Row, Table, render
from edge_resnet.studies.paper.figures import CLAIMS
from edge_resnet.studies.paper.result import ExperimentResult
from edge_resnet.studies.paper.result import Table as Found

__all__ = ["NETWORKS", "SCHEMA", "claim", "publish", "release", "to_json", "write_json"]

#: Of the JSON. A reader refuses a newer one.
SCHEMA = 1
#: The folder of networks that an experiment trained.
NETWORKS = "networks"
_SETTINGS = "settings.json"
_PAGE = "index.html"


def claim(folder: Path, settings: dict[str, Any], *, resume: bool = False, force: bool = False) -> None:
    """Make ``folder`` ready for an experiment with these settings and note them in it.

    Raises BuildError where it cannot be written, or is taken and neither ``resume`` nor ``force`` is set; ConfigError where it
    is to be resumed with other settings. ``force`` removes what an experiment wrote there and nothing else.
    """
    plain = json.loads(json.dumps(settings))
    found = _settings_of(folder)
    if found is not None and force:
        _clear(folder, str(found.get("experiment")))
    elif found is not None and resume:
        changed = sorted(key for key in {*plain, *found} if plain.get(key) != found.get(key))
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{folder} was begun with another {key}: {_shown(found, plain, key)}",
                hint="resume with the options that it was begun with, or name another folder with -o",
            )
    elif found is not None:
        raise BuildError(f"{folder} holds an experiment", hint="--resume goes on with it, --force begins anew, -o names another")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "holds other things" if folder.is_dir() else "is a file"
        raise BuildError(f"{folder} {what}", hint="name another folder with -o")
    write_json(folder / _SETTINGS, plain)


def release(folder: Path) -> None:
    """Take back a claim behind which nothing was written: a refused experiment leaves no folder that the next one trips over."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [_SETTINGS]:
            (folder / _SETTINGS).unlink()
            folder.rmdir()


def publish(finding: ExperimentResult, folder: Path) -> Path:
    """Write EXPERIMENT.json, every chart as SVG and PNG, and the page, which is returned. Raises BuildError."""
    for chart in finding.charts:
        save(chart, folder)
    write_whole(folder / f"{finding.experiment}.json", (to_json(finding) + "\n").encode())
    page = render(
        "finding.html",
        "edge_resnet.studies.paper",
        title=finding.title,
        finding=finding,
        claim=CLAIMS[finding.experiment],
        tables=[_shown_table(table, place) for place, table in enumerate(finding.tables)],
        scaled=_scaled_table(finding),
    )
    return write_whole(folder / _PAGE, page.encode())


def to_json(finding: ExperimentResult) -> str:
    """One line: the finding without its drawings, which are named by file."""
    content = {
        "schema_version": SCHEMA,
        "kind": "edge-resnet paper",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"edge-resnet": __version__, "torch": version("torch")},
        "experiment": finding.experiment,
        "title": finding.title,
        "claim": CLAIMS[finding.experiment],
        "verdicts": finding.verdicts,
        "interrupted": finding.interrupted,
        "scaled_down": [asdict(item) for item in finding.scaled],
        "settings": finding.settings,
        "tables": [{"caption": table.caption, "rows": table.as_dicts()} for table in finding.tables],
        "charts": [f"{chart.name}.svg" for chart in finding.charts],
        "data": finding.data,
    }
    return json.dumps(content, allow_nan=False)


def write_json(path: Path, content: Any) -> Path:
    """Write indented JSON, whole or not at all. Raises BuildError."""
    return write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _settings_of(folder: Path) -> dict[str, Any] | None:
    """What the folder was begun with; None where no experiment was."""
    path = folder / _SETTINGS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="name another folder with -o") from error
    return found if isinstance(found, dict) and "experiment" in found else None


def _clear(folder: Path, experiment: str) -> None:
    try:
        if (folder / NETWORKS).is_dir():
            shutil.rmtree(folder / NETWORKS)
        for path in (*folder.glob("*.svg"), *folder.glob("*.png"), folder / f"{experiment}.json", folder / _PAGE):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise BuildError(f"{folder} cannot be cleared: {error.strerror}", hint="name another folder with -o") from error


def _shown(found: dict[str, Any], now: dict[str, Any], key: str) -> str:
    """What differs: of records inside, the first part that does."""
    old, new = found.get(key), now.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
        part = next(part for part in sorted({*old, *new}) if old.get(part) != new.get(part))
        return f"{part} {old.get(part)}, not {new.get(part)}"
    return f"{old}, not {new}"


def _shown_table(table: Found, place: int) -> Table:
    columns = tuple(Column(column.title, numeric=column.numeric) for column in table.columns)
    rows = tuple(
        Row(tuple(_shown_cell(column.text(cell), cell) for column, cell in zip(table.columns, row, strict=True)))
        for row in table.rows
    )
    return Table(f"table-{place + 1}", table.caption, columns, rows, sortable=len(rows) > 2)


def _shown_cell(text: str, cell: str | float | None) -> Cell:
    return Cell(text, None if cell is None or isinstance(cell, str) else float(cell))


def _scaled_table(finding: ExperimentResult) -> Table:
    columns = (Column(""), Column("the paper"), Column("here"))
    rows = tuple(Row((item.what, item.paper, item.here)) for item in finding.scaled)
    return Table("scaled", "Whatever is not named here is as in the paper, as far as the paper says it.", columns, rows)
