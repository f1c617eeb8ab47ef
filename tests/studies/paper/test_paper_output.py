"""The folder of an experiment: claimed, resumed, replaced, released, and what is written into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.core.errors import BuildError, ConfigError, DataError, EdgeResnetError
from edge_resnet.measurement.page.figure import draw
from edge_resnet.studies.paper.output import NETWORKS, SCHEMA, claim, publish, release, to_json
from edge_resnet.studies.paper.result import Column, ExperimentResult, SetupDifference, Table

SETTINGS: dict[str, Any] = {"experiment": "depth", "depths": (8, 14), "training": {"epochs": 2, "rate": 0.1}}


def result(**changed: Any) -> ExperimentResult:
    """A result with a cell of every kind, and markup that a page has to escape."""
    columns = (Column("network", "network"), Column("error, %", "error", 2), Column("paper", "paper"))
    table = Table("Errors <b>", columns, (("ResNet-8", 12.3456, None), ("ResNet-14", 1234.5, "8.75"), ("<i>x</i>", None, None)))
    asked = {
        "experiment": "depth", "title": "By depth", "verdicts": ("It is <so>.",), "tables": (table,), "charts": (),
        "differences": (SetupDifference("epochs", "164", "2"),), "settings": {"seed": 0}, "data": {"numbers": [1, 2]},
    }  # fmt: skip
    return ExperimentResult(**{**asked, **changed})


def test_tables_for_people_and_programs() -> None:
    """Numbers are rounded and aligned to the right for people, and exact for programs."""
    table = result().tables[0]
    texts = [[column.text(cell) for column, cell in zip(table.columns, row, strict=True)] for row in table.rows]
    assert texts[0] == ["ResNet-8", "12.35", "-"]
    assert texts[1] == ["ResNet-14", "1,234.50", "8.75"]
    assert [column.numeric for column in table.columns] == [False, True, False]
    assert table.as_dicts()[0] == {"network": "ResNet-8", "error": 12.3456, "paper": None}


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    """A second experiment in the folder is refused with a hint; with --resume and the same settings it continues."""
    claim(tmp_path / "a", SETTINGS)
    with pytest.raises(BuildError) as taken:
        claim(tmp_path / "a", SETTINGS)
    assert all(option in taken.value.hint for option in ("--resume", "--force", "-o"))
    claim(tmp_path / "a", SETTINGS, resume=True)


def test_other_settings_cannot_be_resumed(tmp_path: Path) -> None:
    """The error names the value that differs, also within the training options."""
    claim(tmp_path / "a", SETTINGS)
    with pytest.raises(ConfigError, match="depths"):
        claim(tmp_path / "a", {**SETTINGS, "depths": (8,)}, resume=True)
    with pytest.raises(ConfigError, match=r"rate 0\.1, not 0\.2"):
        claim(tmp_path / "a", {**SETTINGS, "training": {"epochs": 2, "rate": 0.2}}, resume=True)


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    """A file, and a folder with other files, are refused even with --force and remain unchanged."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.svg").write_text("mine", encoding="utf-8")
    for name in ("file", "full"):
        with pytest.raises(BuildError):
            claim(tmp_path / name, SETTINGS, force=True)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.svg"]


def test_force_removes_only_what_an_experiment_wrote(tmp_path: Path) -> None:
    """Results and networks are removed; the user's own file stays."""
    folder = tmp_path / "a"
    claim(folder, SETTINGS)
    publish(result(), folder)
    (folder / NETWORKS / "resnet-8").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    claim(folder, SETTINGS, force=True)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "settings.json"]


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    """A settings.json that is not JSON is a DataError with its path, and nothing is overwritten."""
    claim(tmp_path / "a", SETTINGS)
    (tmp_path / "a/settings.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"settings\.json"):
        claim(tmp_path / "a", SETTINGS, force=True)


def test_release_removes_only_an_empty_claim(tmp_path: Path) -> None:
    """The folder of a claim is removed if nothing else was written to it, and stays otherwise."""
    claim(tmp_path / "empty", SETTINGS)
    release(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    claim(tmp_path / "worked", SETTINGS)
    (tmp_path / "worked" / NETWORKS).mkdir()
    release(tmp_path / "worked")
    assert (tmp_path / "worked/settings.json").exists()
    release(tmp_path / "never")


def test_json_is_complete(tmp_path: Path) -> None:
    """The file has every number, the differences from the paper and the charts by file name; NaN is refused."""
    chart = draw("depth", "By depth", lambda axes: axes.plot([1, 2], [3, 4]) and None, alt="a line")
    found = result(charts=(chart,))
    publish(found, tmp_path / "out")
    read = json.loads((tmp_path / "out/depth.json").read_text(encoding="utf-8"))
    assert read["schema_version"] == SCHEMA
    assert read["tables"][0]["rows"][0]["error"] == 12.3456
    assert read["scaled_down"] == [{"what": "epochs", "paper": "164", "here": "2"}]
    assert all((tmp_path / "out" / name).is_file() for name in (*read["charts"], "depth.png", "index.html"))
    with pytest.raises(ValueError, match="JSON"):
        to_json(result(data={"bad": float("nan")}))


def test_the_page_escapes_markup_and_marks_incomplete_results(tmp_path: Path) -> None:
    """Markup in names and sentences is text; the paper's values are on the page; only an interrupted result is incomplete."""
    page = publish(result(), tmp_path / "out").read_text(encoding="utf-8")
    assert "It is &lt;so&gt;." in page
    assert "<i>x</i>" not in page
    assert "arXiv:1512.03385" in page
    assert "164" in page
    assert "Incomplete:" not in page
    assert "None." in publish(result(differences=()), tmp_path / "all").read_text(encoding="utf-8")
    part = publish(result(interrupted=True), tmp_path / "part").read_text(encoding="utf-8")
    assert "Incomplete:" in part


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    """A path below a file is refused with an EdgeResnetError before any work."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(EdgeResnetError):
        claim(tmp_path / "file/deeper", SETTINGS)
