"""A cell is used again only where nothing that it depends on has changed; a folder is taken only where it is ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_resnet.core.errors import BuildError
from edge_resnet.studies.sweep.cells import Cells, claim


def test_a_cell_comes_back_for_the_same_key_alone(tmp_path: Path) -> None:
    """Tuples and lists are one to JSON; any other difference is another key."""
    cells = Cells(tmp_path)
    cells.put("resnet18 int8, batch 1", {"seconds": 5, "sizes": (1, 2)}, {"p90": 9.0})
    assert cells.get("resnet18 int8, batch 1", {"sizes": [1, 2], "seconds": 5}) == {"p90": 9.0}
    assert cells.get("resnet18 int8, batch 1", {"sizes": [1, 2], "seconds": 6}) is None
    assert cells.get("resnet18 int8, batch 8", {"sizes": [1, 2], "seconds": 5}) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "edge-resnet cell"}', '{"key": {}, "result": 1}'])
def test_a_cell_that_is_not_whole_is_measured_again(tmp_path: Path, content: str) -> None:
    """Cut off or foreign, it is as if it were not there."""
    cells = Cells(tmp_path)
    cells.put("a", {}, 1)
    (tmp_path / "a.json").write_text(content)
    assert cells.get("a", {}) is None


def test_nothing_is_used_where_all_is_to_be_measured_anew(tmp_path: Path) -> None:
    """Without resume a cell is written and never read."""
    Cells(tmp_path).put("a", {}, 1)
    assert Cells(tmp_path, resume=False).get("a", {}) is None
    assert Cells(tmp_path).get("a", {}) == 1


def test_a_new_folder_and_an_empty_one_are_taken(tmp_path: Path) -> None:
    """Either is ours from then on."""
    assert claim(tmp_path, resume=True, force=False).resume
    assert claim(tmp_path / "a" / "b", resume=False, force=False).folder.is_dir()


def test_a_report_that_is_there_is_gone_on_with(tmp_path: Path) -> None:
    """Unless that is not wanted; --force measures anew."""
    claim(tmp_path, resume=True, force=False)
    (tmp_path / "report.json").touch()
    assert claim(tmp_path, resume=True, force=False).resume
    with pytest.raises(BuildError, match="holds a report already"):
        claim(tmp_path, resume=False, force=False)
    assert not claim(tmp_path, resume=True, force=True).resume


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_something_else_is_refused_whatever_is_asked(tmp_path: Path, force: bool) -> None:
    """Nobody's thesis is overwritten."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BuildError, match="no report of ours"):
        claim(tmp_path, resume=True, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
