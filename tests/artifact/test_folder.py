"""The folder: opened only if complete and unchanged, written completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.artifact.folder import (
    CALIBRATION,
    LABELS,
    MANIFEST,
    MODEL,
    Artifact,
    describe_files,
    newest_artifact,
    open_artifact,
    staging,
    write_json,
)
from edge_resnet.core.errors import ArtifactError, BuildError
from edge_resnet.core.files import sha256_of


def _assert_refused(folder: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        open_artifact(folder)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_build_wrote_is_opened_as_it_was(tiny_artifacts: dict[str, Artifact], precision: str) -> None:
    """Manifest, labels and files are read back unchanged; every file on disk is in the manifest."""
    artifact = tiny_artifacts[precision]
    again = open_artifact(artifact.folder)
    assert again == artifact
    assert describe_files(artifact.folder) == artifact.manifest.files
    assert (CALIBRATION in artifact.manifest.files) == (precision == "int8")
    assert len(again.labels) == 10


@pytest.mark.parametrize("name", [MODEL, CALIBRATION, LABELS])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_bit_is_noticed(tiny_int8: Path, name: str, place: float) -> None:
    """One changed bit anywhere in a file of the same length, and the artifact is refused."""
    content = bytearray((tiny_int8 / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (tiny_int8 / name).write_bytes(content)
    _assert_refused(tiny_int8, f"{name} was changed after the build")


@pytest.mark.parametrize("name", [MODEL, CALIBRATION, LABELS])
def test_a_missing_file_is_named(tiny_int8: Path, name: str) -> None:
    """A file that the manifest lists and the folder lacks is named."""
    (tiny_int8 / name).unlink()
    _assert_refused(tiny_int8, f"{name} is missing")


@pytest.mark.parametrize("name", [MODEL, CALIBRATION, LABELS])
def test_a_file_that_must_be_listed(tiny_int8: Path, name: str) -> None:
    """Removing a file from the manifest does not avoid the check."""
    _edit(tiny_int8, lambda content: content["files"].pop(name))
    _assert_refused(tiny_int8, f"does not list {name}")


@pytest.mark.parametrize("version", [4, 99, "1", None, 1.5, 0, -7, True, [2], 10**400])
def test_a_schema_of_another_time(tiny_int8: Path, version: object) -> None:
    """A newer schema is refused before its unknown fields are reported."""
    _edit(tiny_int8, lambda content: content.update(schema_version=version, invented=True))
    _assert_refused(tiny_int8, "has schema")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"manifest"', "{}", "[" * 100_000, '{"schema_version":' * 50_000])
def test_a_manifest_that_is_none(tiny_int8: Path, text: str) -> None:
    """Cut off, empty, or other JSON."""
    (tiny_int8 / MANIFEST).write_text(text)
    _assert_refused(tiny_int8, "is not a manifest")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda content: content["model"].update(depth=51), "which 51 is not"),
        (lambda content: content["model"].update(depth="deep"), "model.depth"),
        (lambda content: content["model"].update(depth=str(content["model"]["depth"])), "model.depth"),
        (lambda content: content["model"].update(classes=True), "model.classes"),
        (lambda content: content.pop("preprocess"), "preprocess"),
        (lambda content: content.update(precision="int3"), "precision"),
        (lambda content: content["model"].update(classes=11), "lines for 11 classes"),
    ],
)
def test_fields_that_make_no_sense(tiny_int8: Path, change: Callable[[dict[str, Any]], object], match: str) -> None:
    """Each field is checked, and the error says which."""
    _edit(tiny_int8, change)
    with pytest.raises(ArtifactError, match=match):
        open_artifact(tiny_int8)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "engines/../../outside", "a/../../outside"])
def test_no_path_leaves_the_folder(tiny_int8: Path, name: str) -> None:
    """A name that leaves the folder or is absolute is refused, even if the file exists with the right hash."""
    outside = tiny_int8.parent / "outside"
    outside.write_text("secret")
    target = Path(name) if name.startswith("/") else outside
    entry = {"sha256": sha256_of(target) if target.is_file() else "", "size": target.stat().st_size if target.is_file() else 0}
    _edit(tiny_int8, lambda content: content["files"].update({name: entry}))
    _assert_refused(tiny_int8, "outside the artifact")


@pytest.mark.parametrize("name", ["", ".", "a/b", "model.onnx\0", "x" * 300, "ü" * 128, "a\ud800"])
def test_names_that_no_file_can_have(tiny_int8: Path, name: str) -> None:
    """NUL, too long, empty, a path: refused before the disk is asked."""
    _edit(tiny_int8, lambda content: content["files"].update({name: {"sha256": "", "size": 0}}))
    with pytest.raises(ArtifactError) as caught:
        open_artifact(tiny_int8)
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()


def test_links_that_lead_to_themselves(tiny_int8: Path) -> None:
    """In place of a file, of the manifest, and of the folder; the newest artifact is looked for without them."""
    (tiny_int8 / MODEL).unlink()
    (tiny_int8 / MODEL).symlink_to(MODEL)
    _assert_refused(tiny_int8, MODEL)
    loop = tiny_int8.parent / "loop"
    loop.symlink_to(loop)
    _assert_refused(loop, "loop")
    assert newest_artifact(tiny_int8.parent) == tiny_int8
    (tiny_int8 / MANIFEST).unlink()
    (tiny_int8 / MANIFEST).symlink_to(MANIFEST)
    _assert_refused(tiny_int8, MANIFEST)
    with pytest.raises(ArtifactError, match="no artifact under"):
        newest_artifact(tiny_int8.parent)
    _assert_refused(tiny_int8.parent / ("x" * 300), "cannot be read")


@pytest.mark.parametrize("name", [MANIFEST, CALIBRATION, LABELS, MODEL])
def test_what_is_no_file_is_not_waited_for(tiny_int8: Path, name: str) -> None:
    """A FIFO in place of any file is refused at once."""
    (tiny_int8 / name).unlink()
    os.mkfifo(tiny_int8 / name)
    _assert_refused(tiny_int8, name)


def test_a_large_manifest_is_not_parsed(tiny_int8: Path) -> None:
    """More than 1 MiB is not a manifest, whatever it holds."""
    _edit(tiny_int8, lambda content: content.update(tools={str(number): "x" * 100 for number in range(12_000)}))
    _assert_refused(tiny_int8, "larger than the 1 MiB")


def _rewrite(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and list it with its new size and hash, as an attacker would."""
    (folder / name).write_bytes(content)
    files = {name: {"sha256": sha256_of(folder / name), "size": len(content)}}
    _edit(folder, lambda manifest: manifest["files"].update(files))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"caf\xe9\n" * 10, "not UTF-8"),
        (b"a\n" * ((1 << 23) + 1), "larger than"),
        (b"", "has 1 lines"),
        (b"a\nb\n", "has 2 lines"),
    ],
)
def test_labels_that_are_none(tiny_int8: Path, content: bytes, match: str) -> None:
    """Not UTF-8, more than 16 MiB, another number than the classes."""
    _rewrite(tiny_int8, LABELS, content)
    _assert_refused(tiny_int8, match)


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, '{"amax": {"a": NaN}}', '{"amax": {"a": 1e999}}', '{"amax": 3}', "\xff", " " * ((1 << 24) + 1)],
    ids=range(7),
)
def test_a_calibration_table_that_is_none(tiny_int8: Path, text: str) -> None:
    """Whatever the file holds, and where it has more than 16 MiB, is one error with a hint."""
    _rewrite(tiny_int8, CALIBRATION, text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=CALIBRATION) as caught:
        open_artifact(tiny_int8).calibration()
    assert caught.value.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, True, "1"])
def test_a_range_that_is_no_positive_number(tiny_int8: Path, value: object) -> None:
    """Each amax is a positive finite number, and neither true nor a text."""
    table = json.loads((tiny_int8 / CALIBRATION).read_text())
    table["amax"][next(iter(table["amax"]))] = value
    _rewrite(tiny_int8, CALIBRATION, json.dumps(table).encode())
    with pytest.raises(ArtifactError, match=CALIBRATION):
        open_artifact(tiny_int8).calibration()


def test_no_link_leaves_the_folder(tiny_int8: Path) -> None:
    """A symbolic link to a file outside is refused, even if the content is the same."""
    moved = tiny_int8.parent / "moved.onnx"
    (tiny_int8 / MODEL).rename(moved)
    (tiny_int8 / MODEL).symlink_to(moved)
    _assert_refused(tiny_int8, "outside the artifact")


def test_folders_that_are_none(tmp_path: Path) -> None:
    """No folder, an empty one, and a file are not artifacts."""
    _assert_refused(tmp_path / "nowhere", "no artifact at")
    _assert_refused(tmp_path, "has no manifest.json")
    (tmp_path / "file").write_text("x")
    _assert_refused(tmp_path / "file", "has no manifest.json")


def test_a_table_of_another_graph(tiny_int8: Path) -> None:
    """Ranges measured on another graph are not used, even if every hash is right."""
    artifact = open_artifact(tiny_int8)
    write_json(tiny_int8 / CALIBRATION, replace(artifact.calibration(), model_digest="0" * 64))
    write_json(tiny_int8 / MANIFEST, replace(artifact.manifest, files=describe_files(tiny_int8)))
    with pytest.raises(ArtifactError, match="measured on another graph"):
        open_artifact(tiny_int8).calibration()


def test_only_int8_has_a_table(tiny_artifacts: dict[str, Artifact]) -> None:
    """Asking a float artifact for ranges is an error with a hint."""
    with pytest.raises(ArtifactError) as caught:
        tiny_artifacts["fp32"].calibration()
    assert "--int8" in caught.value.hint


def test_the_source_digest_follows_graph_and_ranges(tiny_int8: Path) -> None:
    """It changes with the hash of the graph or the table, and with nothing else."""
    artifact = open_artifact(tiny_int8)
    files = dict(artifact.manifest.files)

    def digest(name: str) -> str:
        changed = {**files, name: replace(files[name], sha256="f" * 64)}
        return replace(artifact, manifest=replace(artifact.manifest, files=changed)).source_digest()

    assert digest(LABELS) == artifact.source_digest()
    assert len({digest(MODEL), digest(CALIBRATION), artifact.source_digest()}) == 3


def test_the_newest_is_the_one_written_last(tmp_path: Path) -> None:
    """By the time of the manifest; folders being built are skipped, and none at all is an error."""
    with pytest.raises(ArtifactError, match="no artifact under"):
        newest_artifact(tmp_path)
    for age, name in enumerate(["b", "a", ".c.123.part"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text("{}")
        os.utime(tmp_path / name / MANIFEST, (time.time() + age, time.time() + age))
    assert newest_artifact(tmp_path) == tmp_path / "a"


def _fill(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)


def _fail_half_way(folder: Path, error: BaseException) -> None:
    _fill(folder, "half")
    raise error


def test_staging_appears_whole(tmp_path: Path) -> None:
    """The target exists only after the block, complete and without anything beside it."""
    target = tmp_path / "deep" / "x"
    with staging(target) as work:
        _fill(work, "new")
        assert not target.exists()
    assert (target / MANIFEST).read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit(1), BuildError("x")])
@pytest.mark.parametrize("force", [False, True])
def test_staging_leaves_nothing_of_a_failure(tmp_path: Path, error: BaseException, force: bool) -> None:
    """Whatever ends the block, the temporary folder is removed and the old target kept."""
    target = tmp_path / "x"
    if force:
        target.mkdir()
        _fill(target, "old")
    with pytest.raises(type(error)), staging(target, force=force) as work:
        _fail_half_way(work, error)
    assert [path.name for path in tmp_path.iterdir()] == (["x"] if force else [])
    assert not force or (target / MANIFEST).read_text() == "old"


def test_staging_refuses_what_is_there(tmp_path: Path) -> None:
    """Without force an existing target is kept, and the error names --force."""
    (tmp_path / "x").mkdir()
    with pytest.raises(BuildError, match="exists already") as caught, staging(tmp_path / "x"):
        pass
    assert "--force" in caught.value.hint


@pytest.mark.parametrize("force", [False, True])
def test_what_appeared_meanwhile_is_kept(tmp_path: Path, force: bool) -> None:
    """A folder of the user's that came into being during the build is not deleted, with --force neither, and this is said."""

    def build() -> None:
        with staging(tmp_path / "x", force=force) as work:
            _fill(work, "new")
            (tmp_path / "x").mkdir()
            (tmp_path / "x" / "notes.txt").write_text("notes of a week")

    with pytest.raises(BuildError, match="appeared while it was being made, and is kept") as caught:
        build()
    assert "-o" in caught.value.hint
    assert (tmp_path / "x" / "notes.txt").read_text() == "notes of a week"
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "notes.txt"]


def test_force_replaces_only_what_is_ours(tmp_path: Path) -> None:
    """--force -o ~ must not delete a home: a folder without a manifest is refused."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "letters.txt").write_text("dear")
    with pytest.raises(BuildError, match="is not an artifact"), staging(home, force=True):
        pass
    assert (home / "letters.txt").read_text() == "dear"


def test_force_replaces_an_artifact(tmp_path: Path) -> None:
    """The new artifact replaces the old one, and nothing else is left."""
    for text in ("old", "new"):
        with staging(tmp_path / "x", force=True) as work:
            _fill(work, text)
    assert (tmp_path / "x" / MANIFEST).read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_name_that_no_disk_takes(tmp_path: Path) -> None:
    """Too long, or through a link that leads to itself: one error, with a hint."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for target in (tmp_path / ("x" * 300), tmp_path / "loop" / "x"):
        for force in (False, True):
            with pytest.raises(BuildError) as caught, staging(target, force=force):
                pass
            assert caught.value.hint


@pytest.mark.parametrize(
    ("code", "word"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "may write"), (errno.EACCES, "may write"), (errno.EIO, "check")],
)
def test_a_disk_that_fails_is_one_line(tmp_path: Path, code: int, word: str) -> None:
    """An OSError in the block becomes a BuildError with a fitting hint."""
    with pytest.raises(BuildError) as caught, staging(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert os.strerror(code) in caught.value.message
    assert word in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_target_below_a_file(tmp_path: Path) -> None:
    """A path through a file is a BuildError, not a traceback."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(BuildError), staging(tmp_path / "file" / "x"):
        pass


@pytest.mark.parametrize("absolute", [True, False])
def test_force_replaces_what_a_link_leads_to(tmp_path: Path, absolute: bool) -> None:
    """The artifact behind a link is replaced, and the link still leads to it."""
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / MANIFEST).write_text("{}")
    (tmp_path / "current").symlink_to(tmp_path / "v1" if absolute else "v1")
    with staging(tmp_path / "current", force=True) as work:
        (work / MANIFEST).write_text('{"new": 1}')
    assert (tmp_path / "current").is_symlink()
    assert (tmp_path / "v1" / MANIFEST).read_text() == '{"new": 1}'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]


@pytest.mark.parametrize("name", [".", "../own", ".."])
def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It would be removed under the shell's feet; it is refused before any work."""
    folder = tmp_path / "own"
    (folder / "below").mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    monkeypatch.chdir(folder / "below" if name == ".." else folder)
    with pytest.raises(BuildError, match="working folder"), staging(Path(name), force=True):
        pytest.fail("the block was entered")
    assert (folder / MANIFEST).read_text() == "{}"
