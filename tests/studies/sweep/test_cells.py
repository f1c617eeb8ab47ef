"""A cell is reused only if nothing that it depends on has changed; a folder is used only if it is a report's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_resnet.core.errors import BuildError
from edge_resnet.studies.sweep.cells import Cells, claim


def test_a_cell_is_reused_for_the_same_key_only(tmp_path: Path) -> None:
    """Tuples equal lists, as in JSON; any other difference makes another key."""
    cells = Cells(tmp_path)
    cells.put("resnet18 int8, batch 1", {"seconds": 5, "sizes": (1, 2)}, {"p90": 9.0})
    assert cells.get("resnet18 int8, batch 1", {"sizes": [1, 2], "seconds": 5}) == {"p90": 9.0}
    assert cells.get("resnet18 int8, batch 1", {"sizes": [1, 2], "seconds": 6}) is None
    assert cells.get("resnet18 int8, batch 8", {"sizes": [1, 2], "seconds": 5}) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "edge-resnet cell"}', '{"key": {}, "result": 1}'])
def test_an_incomplete_cell_is_measured_again(tmp_path: Path, content: str) -> None:
    """A truncated or foreign file counts as missing."""
    cells = Cells(tmp_path)
    cells.put("a", {}, 1)
    (tmp_path / "a.json").write_text(content)
    assert cells.get("a", {}) is None


def test_without_resume_nothing_is_reused(tmp_path: Path) -> None:
    """Cells are written and never read."""
    Cells(tmp_path).put("a", {}, 1)
    assert Cells(tmp_path, resume=False).get("a", {}) is None
    assert Cells(tmp_path).get("a", {}) == 1


def test_a_new_folder_and_an_empty_one_are_claimed(tmp_path: Path) -> None:
    """Both are then folders of a report."""
    assert claim(tmp_path, resume=True, force=False).resume
    assert claim(tmp_path / "a" / "b", resume=False, force=False).folder.is_dir()


def test_an_existing_report_is_resumed(tmp_path: Path) -> None:
    """Unless --no-resume is given; --force measures again."""
    claim(tmp_path, resume=True, force=False)
    (tmp_path / "report.json").touch()
    assert claim(tmp_path, resume=True, force=False).resume
    with pytest.raises(BuildError, match="already contains a report"):
        claim(tmp_path, resume=False, force=False)
    assert not claim(tmp_path, resume=True, force=True).resume


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_other_files_is_always_refused(tmp_path: Path, force: bool) -> None:
    """Nothing in it is changed."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BuildError, match="contains no report"):
        claim(tmp_path, resume=True, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
