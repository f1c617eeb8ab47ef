"""The file of a result: read back as it was written, refused if it is truncated or foreign."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import HandClock, Scripted

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import BuildError, DataError
from edge_resnet.measurement.bench.bench import bench
from edge_resnet.measurement.bench.result import BenchResult, read_result, read_results, to_json, write_results
from edge_resnet.measurement.bench.rules import BenchOptions

#: Keys that other programs may rely on.
DOCUMENTED = {"scenario", "count", "p50_ms", "p90_ms", "p99_ms", "throughput_per_s", "stages_ms"}


@pytest.fixture(scope="module")
def result(tiny_artifacts: dict[str, Artifact]) -> BenchResult:
    """A result of scripted latencies."""
    clock = HandClock()
    options = BenchOptions(seconds=0.2, min_queries=20, starts=0, frame=(64, 48), power=False)
    return bench(tiny_artifacts["int8"], options, network=Scripted(clock, repeat(10.0)), clock=clock)


def test_it_is_read_back_unchanged(result: BenchResult, tmp_path: Path) -> None:
    """Written and read, a result equals itself, its samples included; nothing else is left in the folder."""
    path = tmp_path / "bench.json"
    write_results(path, [result])
    assert read_result(path) == result
    assert result.samples_us
    assert list(tmp_path.iterdir()) == [path]


def test_several_scenarios_in_a_file(result: BenchResult, tmp_path: Path) -> None:
    """They are read in order; a single one must be selected by its scenario."""
    offline = replace(result, scenario="offline")
    path = tmp_path / "bench.json"
    write_results(path, [result, offline])
    assert read_results(path) == (result, offline)
    assert read_result(path, "offline") == offline
    for scenario in (None, "multi-stream"):
        with pytest.raises(DataError, match="holds single-stream, offline"):
            read_result(path, scenario)  # type: ignore[arg-type]


def test_the_documented_keys(result: BenchResult) -> None:
    """One result is an object with the documented keys; without samples their list is empty."""
    record = json.loads(to_json([result], samples=False))
    assert set(record) >= DOCUMENTED
    assert record["samples_us"] == []
    assert record["schema_version"] == 1
    assert set(record["stages_ms"]) == {"preprocess", "inference", "postprocess", "total"}


def test_samples_are_one_line(result: BenchResult) -> None:
    """Thousands of samples take one line."""
    lines = to_json([replace(result, samples_us=(1.5,) * 5000)], samples=True).splitlines()
    assert len(lines) < 200
    assert sum(line.count("1.5,") for line in lines) == max(line.count("1.5,") for line in lines)


@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(result: BenchResult, share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Wherever it is cut off, the error is the same and names the file."""
    path = tmp_path_factory.mktemp("cut") / "bench.json"
    whole = to_json([result], samples=True)
    path.write_text(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"bench\.json is cut off"):
        read_result(path)


def test_a_newer_schema_is_refused(result: BenchResult, tmp_path: Path) -> None:
    """The schema is reported before any unknown field is."""
    path = tmp_path / "bench.json"
    record = json.loads(to_json([result], samples=True))
    path.write_text(json.dumps({"kind": record["kind"], "schema_version": 2, "all": "new"}))
    with pytest.raises(DataError, match="has schema 2, this edge-resnet reads up to 1") as refusal:
        read_result(path)
    assert refusal.value.hint == "pip install -U edge-resnet"


@pytest.mark.parametrize("content", ["{}", "[]", "3", "[[]]", '{"images": 3, "top1": 50.0}', '{"kind": "edge-resnet bench"}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    """Other JSON is a DataError that names the file."""
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"other\.json"):
        read_results(path)


def test_a_missing_field_is_named(result: BenchResult, tmp_path: Path) -> None:
    """A record without its p90 is refused with that name."""
    path = tmp_path / "bench.json"
    record = json.loads(to_json([result], samples=True))
    del record["p90_ms"]
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="p90_ms"):
        read_result(path)


def test_no_file(tmp_path: Path) -> None:
    """A missing file and a folder cannot be read."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_result(path)


def test_a_failed_write_is_one_error(result: BenchResult, tmp_path: Path) -> None:
    """If a file has the name of the folder, the error names what should have been written."""
    (tmp_path / "none").touch()
    with pytest.raises(BuildError, match=r"cannot write .*bench\.json"):
        write_results(tmp_path / "none" / "bench.json", [result])
