"""Engines in an artifact: found only if whole, unchanged and derived from the same source."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from edge_resnet.artifact.enginecache import find_engine, store_engine
from edge_resnet.artifact.folder import Artifact, open_artifact


@pytest.fixture
def artifact(tiny_int8: Path) -> Artifact:
    """A copy of an artifact with an engine `mine` of two files."""
    opened = open_artifact(tiny_int8)
    store_engine(opened, "mine", "form", _write)
    return opened


def _write(folder: Path) -> None:
    (folder / "plan").write_bytes(bytes(1000))
    (folder / "notes.txt").write_text("tactics")


def test_what_was_stored_is_found(artifact: Artifact) -> None:
    """The folder is found, with its files and a meta.json that lists them."""
    folder = find_engine(artifact, "mine")
    assert folder == artifact.engine_folder("mine")
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["truth"] == artifact.source_digest()
    assert set(meta["files"]) == {"plan", "notes.txt"}


def test_an_engine_that_is_not_there(artifact: Artifact) -> None:
    """None, and nothing is logged."""
    assert find_engine(artifact, "other") is None


@pytest.mark.parametrize("file", ["plan", "notes.txt"])
def test_a_changed_engine_is_a_miss(artifact: Artifact, file: str, caplog: pytest.LogCaptureFixture) -> None:
    """Changed bytes are not loaded, and the reason is logged."""
    (artifact.engine_folder("mine") / file).write_bytes(b"else")
    with caplog.at_level(logging.WARNING, "edge_resnet"):
        assert find_engine(artifact, "mine") is None
    assert "mine" in caplog.text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"key": "mine"}', '{"key": "mine", "truth": 1, "files": 3}'])
def test_a_damaged_meta_is_a_miss(artifact: Artifact, text: str) -> None:
    """Whatever meta.json contains, nothing is raised and nothing is loaded."""
    (artifact.engine_folder("mine") / "meta.json").write_text(text)
    assert find_engine(artifact, "mine") is None


def test_a_missing_file_is_a_miss(artifact: Artifact) -> None:
    """A file that meta.json lists and the folder lacks."""
    (artifact.engine_folder("mine") / "plan").unlink()
    assert find_engine(artifact, "mine") is None


def test_an_engine_of_another_source_is_a_miss(artifact: Artifact) -> None:
    """An engine copied from another artifact under the same key is refused."""
    files = {name: replace(entry, sha256="0" * 64) for name, entry in artifact.manifest.files.items()}
    other = replace(artifact, manifest=replace(artifact.manifest, files=files))
    assert find_engine(other, "mine") is None


def test_an_engine_under_another_key_is_a_miss(artifact: Artifact) -> None:
    """Renaming an engine's folder does not make it another engine."""
    artifact.engine_folder("mine").rename(artifact.engine_folder("yours"))
    assert find_engine(artifact, "yours") is None


def test_storing_replaces_a_damaged_one(artifact: Artifact) -> None:
    """After a miss the same key can be stored again."""
    (artifact.engine_folder("mine") / "plan").write_bytes(b"else")
    store_engine(artifact, "mine", "form", _write)
    assert find_engine(artifact, "mine") is not None


def test_a_failed_store_leaves_no_litter(artifact: Artifact) -> None:
    """An engine that could not be written leaves neither a folder nor a part of one."""

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store_engine(artifact, "new", "form", fail)
    assert not any("new" in path.name for path in artifact.engine_folder("x").parent.iterdir())


def test_engines_are_not_part_of_the_source(artifact: Artifact) -> None:
    """An artifact is the same with and without its engines."""
    assert open_artifact(artifact.folder).manifest == artifact.manifest
