"""The output folder of an experiment: claimed before the work, then filled with the results. Does not know the experiments."""

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
from edge_resnet.studies.paper.result import Table as ResultTable

__all__ = ["NETWORKS", "SCHEMA", "claim", "publish", "release", "to_json", "write_json"]

#: Schema of the JSON files. Readers refuse a newer one.
SCHEMA = 1
#: The subfolder of the networks that an experiment trained.
NETWORKS = "networks"
_SETTINGS = "settings.json"
_PAGE = "index.html"


def claim(folder: Path, settings: dict[str, Any], *, resume: bool = False, force: bool = False) -> None:
    """Prepare ``folder`` for an experiment and write its settings there.

    ``force`` removes what an experiment wrote there and nothing else. Raises BuildError if the folder cannot be written, or is
    in use and neither ``resume`` nor ``force`` is set; ConfigError if it would be resumed with other settings.
    """
    wanted = json.loads(json.dumps(settings))
    found = _settings_of(folder)
    if found is not None and force:
        _clear(folder, str(found.get("experiment")))
    elif found is not None and resume:
        changed = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{folder} was started with another {key}: {_change(found, wanted, key)}",
                hint="resume with the options that it was started with, or choose another folder with -o",
            )
    elif found is not None:
        raise BuildError(
            f"{folder} already contains an experiment",
            hint="--resume continues it, --force replaces it, -o chooses another folder",
        )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "contains other files" if folder.is_dir() else "is a file"
        raise BuildError(f"{folder} {what}", hint="choose another folder with -o")
    write_json(folder / _SETTINGS, wanted)


def release(folder: Path) -> None:
    """Remove a claimed folder if nothing was written after the claim, so that a failed experiment does not block the next."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [_SETTINGS]:
            (folder / _SETTINGS).unlink()
            folder.rmdir()


def publish(result: ExperimentResult, folder: Path) -> Path:
    """Write EXPERIMENT.json, every chart as SVG and PNG, and the page, whose path is returned. Raises BuildError."""
    for chart in result.charts:
        save(chart, folder)
    write_whole(folder / f"{result.experiment}.json", (to_json(result) + "\n").encode())
    page = render(
        "result.html",
        "edge_resnet.studies.paper",
        title=result.title,
        result=result,
        claim=CLAIMS[result.experiment],
        tables=[_page_table(table, index) for index, table in enumerate(result.tables)],
        differences=_differences_table(result),
    )
    return write_whole(folder / _PAGE, page.encode())


def to_json(result: ExperimentResult) -> str:
    """The result as one line of JSON; charts are given by their file names."""
    content = {
        "schema_version": SCHEMA,
        "kind": "edge-resnet paper",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"edge-resnet": __version__, "torch": version("torch")},
        "experiment": result.experiment,
        "title": result.title,
        "claim": CLAIMS[result.experiment],
        "verdicts": result.verdicts,
        "interrupted": result.interrupted,
        "scaled_down": [asdict(item) for item in result.differences],
        "settings": result.settings,
        "tables": [{"caption": table.caption, "rows": table.as_dicts()} for table in result.tables],
        "charts": [f"{chart.name}.svg" for chart in result.charts],
        "data": result.data,
    }
    return json.dumps(content, allow_nan=False)


def write_json(path: Path, content: Any) -> Path:
    """Write indented JSON atomically. Raises BuildError."""
    return write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _settings_of(folder: Path) -> dict[str, Any] | None:
    """The settings of the experiment in the folder, None if there is none. Raises DataError if they are damaged."""
    path = folder / _SETTINGS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="choose another folder with -o") from error
    return found if isinstance(found, dict) and "experiment" in found else None


def _clear(folder: Path, experiment: str) -> None:
    try:
        if (folder / NETWORKS).is_dir():
            shutil.rmtree(folder / NETWORKS)
        for path in (*folder.glob("*.svg"), *folder.glob("*.png"), folder / f"{experiment}.json", folder / _PAGE):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise BuildError(f"{folder} cannot be cleared: {error.strerror}", hint="choose another folder with -o") from error


def _change(found: dict[str, Any], now: dict[str, Any], key: str) -> str:
    """The old and the new value; of nested settings, the first that differs."""
    old, new = found.get(key), now.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
        part = next(part for part in sorted({*old, *new}) if old.get(part) != new.get(part))
        return f"{part} {old.get(part)}, not {new.get(part)}"
    return f"{old}, not {new}"


def _page_table(table: ResultTable, index: int) -> Table:
    columns = tuple(Column(column.title, numeric=column.numeric) for column in table.columns)
    rows = tuple(
        Row(tuple(_page_cell(column.text(cell), cell) for column, cell in zip(table.columns, row, strict=True)))
        for row in table.rows
    )
    return Table(f"table-{index + 1}", table.caption, columns, rows, sortable=len(rows) > 2)


def _page_cell(text: str, cell: str | float | None) -> Cell:
    return Cell(text, None if cell is None or isinstance(cell, str) else float(cell))


def _differences_table(result: ExperimentResult) -> Table:
    columns = (Column(""), Column("the paper"), Column("here"))
    rows = tuple(Row((item.what, item.paper, item.here)) for item in result.differences)
    return Table("scaled", "Everything else is as in the paper, as far as it is stated there.", columns, rows)
