"""Engines in an artifact: found only if whole, unchanged and derived from the same source."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.artifact.enginecache import find_engine, store_engine
from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.core.errors import BuildError
from edge_resnet.core.files import sha256_of


@pytest.fixture
def artifact(tiny_int8: Path) -> Artifact:
    """A copy of an artifact with an engine `mine` of two files."""
    opened = open_artifact(tiny_int8)
    shutil.rmtree(opened.engine_folder("x").parent, ignore_errors=True)
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


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _point_to(folder: Path, secret: Path) -> None:
    """A link in place of the plan, listed with the size and hash of what it leads to."""
    _instead(folder / "plan", lambda path: path.symlink_to(secret))
    entry = {"sha256": sha256_of(secret), "size": secret.stat().st_size}
    _edit(folder, lambda meta: meta["files"].update(plan=entry))


#: Attack on the folder of an engine → the reason in the log. None of them may be opened, waited for, or believed.
ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "meta is a fifo": (lambda folder: _instead(folder / "meta.json", os.mkfifo), "not a regular file"),
    "meta is endless": (lambda folder: _instead(folder / "meta.json", lambda p: p.symlink_to("/dev/zero")), "not a regular"),
    "meta is large": (lambda folder: (folder / "meta.json").write_bytes(b" " * (1 << 25)), "larger than"),
    "meta is nested": (lambda folder: (folder / "meta.json").write_text("[" * 100_000), "meta.json"),
    "meta is a number": (lambda folder: _edit(folder, lambda meta: meta.update(truth=1)), "truth"),
    "a size is true": (lambda folder: _edit(folder, lambda meta: meta["files"]["plan"].update(size=True)), "files.plan.size"),
    "a plan is a fifo": (lambda folder: _instead(folder / "plan", os.mkfifo), "'plan' is not a regular file"),
    "a plan is a link": (lambda folder: _point_to(folder, Path("/etc/passwd")), "'plan' is not a regular file"),
    "a plan is endless": (lambda folder: _instead(folder / "plan", lambda p: p.symlink_to("/dev/zero")), "not a regular file"),
    "nothing is listed": (lambda folder: _edit(folder, lambda meta: meta.update(files={})), "are not those"),
    "a file is unlisted": (lambda folder: (folder / "more").write_text("x"), "are not those"),
    "a file is elsewhere": (lambda folder: _edit(folder, lambda meta: meta["files"].update({"../x": {}})), "files"),
    "there is no meta": (lambda folder: (folder / "meta.json").unlink(), "has no meta.json"),
    "there is nothing": (lambda folder: [path.unlink() for path in folder.iterdir()], "has no meta.json"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attacked_engine_is_derived_again(artifact: Artifact, attack: str, caplog: pytest.LogCaptureFixture) -> None:
    """The folder is refused at once with the reason, and what is stored next replaces it, whatever it is."""
    folder = artifact.engine_folder("mine")
    change, reason = ATTACKS[attack]
    change(folder)
    with caplog.at_level(logging.WARNING, "edge_resnet"):
        assert find_engine(artifact, "mine") is None
    assert "will be derived again" in caplog.text
    assert reason in caplog.text
    store_engine(artifact, "mine", "form", _write)
    assert find_engine(artifact, "mine") == folder
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_what_is_no_folder_is_replaced(artifact: Artifact, tmp_path: Path, kind: str) -> None:
    """A file or a link under an engine's name is no engine; it is replaced, and what a link leads to is not touched."""
    folder, elsewhere = artifact.engine_folder("mine"), tmp_path / "elsewhere"
    folder.rename(elsewhere)
    if kind == "file":
        folder.write_text("x")
    else:
        folder.symlink_to(elsewhere if kind == "link" else tmp_path / "nowhere")
    assert find_engine(artifact, "mine") is None
    store_engine(artifact, "mine", "form", _write)
    assert find_engine(artifact, "mine") == folder
    assert not folder.is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["meta.json", "notes.txt", "plan"]


def test_a_linked_cache_is_neither_read_nor_written(artifact: Artifact, tmp_path: Path) -> None:
    """A link in place of engines/ would have this program write elsewhere."""
    engines, elsewhere = artifact.engine_folder("x").parent, tmp_path / "elsewhere"
    engines.rename(elsewhere)
    engines.symlink_to(elsewhere)
    assert find_engine(artifact, "mine") is None
    with pytest.raises(BuildError, match="is a link") as caught:
        store_engine(artifact, "new", "form", _write)
    assert caught.value.hint == f"rm {engines}"
    assert [path.name for path in elsewhere.iterdir()] == ["mine"]


def test_the_profile_that_trtexec_adds_is_no_change(artifact: Artifact) -> None:
    """profile.json beside the plan is read by inspect, and is no part of the engine."""
    (artifact.engine_folder("mine") / "profile.json").write_text("[]")
    assert find_engine(artifact, "mine") is not None


def test_the_cache_may_be_deleted(artifact: Artifact) -> None:
    """Without engines/ there is no engine, and the next one is stored."""
    shutil.rmtree(artifact.engine_folder("x").parent)
    assert find_engine(artifact, "mine") is None
    store_engine(artifact, "mine", "form", _write)
    assert find_engine(artifact, "mine") is not None
