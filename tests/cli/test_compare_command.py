"""``compare`` as a user types it: a table, Markdown, JSON, and the exit code of a gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Cli = Callable[..., Any]


def evaluation(path: Path, top1: float, half: float = 1.0) -> str:
    """What eval --json prints, as far as compare reads it."""
    record = {"images": 500, "top1": top1, "top5": 92.0, "ci95": [top1 - half, top1 + half], "agreement": 97.0, "fp32_top1": 75.0}
    path.write_text(json.dumps(record))
    return str(path)


def test_a_regression_is_exit_3(cli: Cli, tmp_path: Path) -> None:
    """And says which figure it was; the other way round nothing is worse."""
    old, new = evaluation(tmp_path / "old.json", 75.0), evaluation(tmp_path / "new.json", 70.0)
    outcome = cli("compare", old, new)
    assert outcome.code == 3
    assert "top-1" in outcome.out
    assert "something became worse" in outcome.out
    back = cli("compare", new, old)
    assert (back.code, "nothing became worse" in back.out) == (0, True)
    assert cli("compare", old, new, "--max-drop", "9").code == 0


def test_markdown_and_json(cli: Cli, tmp_path: Path) -> None:
    """A table with a row per figure, and the same as JSON alone."""
    old, new = evaluation(tmp_path / "old.json", 75.0), evaluation(tmp_path / "new.json", 70.0)
    lines = cli("compare", old, new, "--markdown").out.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 2 + 3
    assert "**Something became worse.**" in lines
    found = json.loads(cli("compare", old, new, "--json").out)
    assert found["regressed"] is True
    assert [delta["verdict"] for delta in found["deltas"]] == ["worse", "same", "same"]


def test_a_file_that_is_none(cli: Cli, tmp_path: Path) -> None:
    """One line and a hint, exit 2."""
    outcome = cli("compare", evaluation(tmp_path / "old.json", 75.0), "nothing.json")
    assert outcome.code == 2
    assert [line.split(":")[0] for line in outcome.err.strip().splitlines()] == ["error", "hint"]
