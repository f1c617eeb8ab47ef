"""calibration/tables: each measured table is complete, records its source, and is reproduced if its data is available."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from edge_resnet.artifact.schema import CalibrationTable

REPO = Path(__file__).resolve().parent.parent
TABLES = REPO / "calibration" / "tables"
NAMES = ("resnet18", "resnet20-cifar", "resnet32-cifar", "resnet50")


def _read(path: Path) -> tuple[dict[str, Any], CalibrationTable]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, TypeAdapter(CalibrationTable).validate_json(json.dumps(content["table"]))


def test_the_tables_are_the_ones_described() -> None:
    """Each file has its row in the folder's README."""
    assert tuple(sorted(path.stem for path in TABLES.glob("*.json"))) == NAMES
    readme = (TABLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"| `{name}.json` |" not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_whole_and_says_where_it_came_from(name: str) -> None:
    """It parses as an artifact's record, is uncorrected, and has the digests of weights, graph and images."""
    content, table = _read(TABLES / f"{name}.json")
    assert set(content) == {"name", "weights", "images", "tools", "table"}
    assert content["name"] == name
    assert content["images"].startswith(f"{table.images} of ")
    digests = (content["weights"].removeprefix("sha256:"), table.model_digest, table.images_digest)
    assert [len(bytes.fromhex(digest)) for digest in digests] == [32, 32, 32]
    assert (table.recipe.correction, table.recipe.exact_input, table.images) == ("none", False, table.recipe.images)
    assert set(table.signed) < set(table.amax)


def _measured_again(name: str, data: Path, folder: Path) -> tuple[dict[str, Any], CalibrationTable]:
    words = ["measure_tables.py", "--data", str(data), "--only", name, "-o", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        runpy.run_path(str(REPO / "benchmarks" / "measure_tables.py"), run_name="__main__")
    return _read(folder / f"{name}.json")


@pytest.mark.parametrize(
    "name",
    [
        "resnet20-cifar",
        pytest.param("resnet32-cifar", marks=pytest.mark.slow),
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("resnet50", marks=pytest.mark.slow),
    ],
)
def test_a_table_is_reproduced(name: str, real_data: Path, tmp_path: Path) -> None:
    """The same weights on the same images have the same ranges within 2 %, whatever the versions of the tools."""
    shipped, old = _read(TABLES / f"{name}.json")
    measured, new = _measured_again(name, real_data, tmp_path)
    assert (measured["weights"], measured["images"]) == (shipped["weights"], shipped["images"])
    assert (new.recipe, new.signed) == (old.recipe, old.signed)
    assert dict(new.amax) == pytest.approx(dict(old.amax), rel=0.02)
