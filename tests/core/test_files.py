"""Files are written completely, or stay as they were."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_resnet.core.errors import BuildError, DataError
from edge_resnet.core.files import (
    cache_folder,
    check_free,
    is_known_schema,
    prune_cache,
    read_bounded,
    read_cache,
    read_json,
    replace_files,
    write_cache,
    write_together,
    write_whole,
)


def test_an_interrupted_write_leaves_the_old_files(tmp_path: Path) -> None:
    """Ctrl-C while the second of two files is written: both are unchanged, and nothing else is left."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_text("old")

    def interrupted(part: Path) -> None:
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_files({first: lambda part: part.write_text("new"), second: interrupted})
    assert [path.read_text() for path in (first, second)] == ["old", "old"]
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_file_is_written_whole_over_the_old_one(tmp_path: Path) -> None:
    """Parent folders are created, nothing else is left, and the mode is that of any new file."""
    path = tmp_path / "new" / "page.html"
    for text in ("old", "Ärger"):
        assert write_whole(path, text.encode()) == path
    assert path.read_text(encoding="utf-8") == "Ärger"
    assert [entry.name for entry in path.parent.iterdir()] == ["page.html"]
    (path.parent / "usual").touch()
    assert path.stat().st_mode == (path.parent / "usual").stat().st_mode


def test_private_files_are_never_readable_by_others(tmp_path: Path) -> None:
    """Neither the temporary nor the final file, whatever existed before."""
    path = tmp_path / "secrets.env"
    path.write_text("old")
    path.chmod(0o644)
    seen: list[int] = []
    replace_files({path: lambda part: seen.append(part.stat().st_mode & 0o777)}, private=True)
    assert [*seen, path.stat().st_mode & 0o777] == [0o600, 0o600]


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before the rename, so that it survives a power cut after it."""
    path = tmp_path / "file"
    path.write_text("old")
    seen: list[tuple[bytes, str]] = []

    def synced(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").read_bytes(), path.read_text()))

    monkeypatch.setattr(os, "fsync", synced)
    write_whole(path, b"new")
    assert seen == [(b"new", "old")]


def test_a_full_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names every file, and the old files are kept."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(descriptor))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "a.onnx"
    path.write_text("old")
    with pytest.raises(BuildError, match=r"cannot write .*a\.onnx and .*a\.cache: No space left") as caught:
        write_together({path: b"new", tmp_path / "a.cache": b"new"})
    assert "free disk space" in caught.value.hint
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    """A missing folder, a folder instead of the file, and an existing file without force."""
    path = tmp_path / "bench.json"
    check_free(path, force=False)
    path.write_text("{}")
    check_free(path, force=True)
    for wrong in (path, tmp_path, tmp_path / "none" / "bench.json"):
        with pytest.raises(BuildError) as caught:
            check_free(wrong, force=False)
        assert caught.value.hint


def test_what_is_no_file_is_no_place_for_one(tmp_path: Path) -> None:
    """With force neither: as root a result saved to /dev/null would replace the device."""
    for path in (Path("/dev/null"), tmp_path / ("x" * 300)):
        with pytest.raises(BuildError, match="cannot be written") as caught:
            check_free(path, force=True)
        assert caught.value.hint
    with pytest.raises(BuildError, match="not a regular file"):
        write_whole(Path("/dev/null"), b"x")


def test_without_force_a_file_that_appeared_is_kept(tmp_path: Path) -> None:
    """It was not there before a long measurement, and is there after it."""
    path = tmp_path / "bench.json"
    path.write_text("old")
    with pytest.raises(BuildError, match="File exists") as caught:
        write_whole(path, b"new", force=False)
    assert "--force" in caught.value.hint
    assert path.read_text() == "old"


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    """An endless file ends at the limit, and what is no regular file is not waited for."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_bounded(path, 10, regular=True) == b"x" * 10
    os.mkfifo(tmp_path / "fifo")
    for wrong, regular in ((path, True), (Path("/dev/zero"), False), (Path("/dev/zero"), True), (tmp_path / "fifo", True)):
        with pytest.raises(OSError, match=r"larger than the|not a regular file"):
            read_bounded(wrong, 9, regular=regular)


@pytest.mark.parametrize("content", ["[" * 100_000, "", "{", "\xff"])
def test_json_that_cannot_be_parsed_is_one_error(tmp_path: Path, content: str) -> None:
    """Nested without an end, cut off, not UTF-8."""
    path = tmp_path / "bench.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="not JSON") as caught:
        read_json(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("version", "known"), [(1, True), (3, True), (4, False), (0, False), (-7, False), (True, False), ("1", False)]
)
def test_schemas_are_whole_numbers_from_one(version: object, known: bool) -> None:
    """True is no schema, although Python takes it for 1."""
    assert is_known_schema(version, 3) is known


def test_a_cache_that_was_not_used_for_long_is_removed(tmp_path: Path) -> None:
    """Of one kind 32 remain: the one that is written, and those that were written or read last."""
    for number in range(40):
        path = tmp_path / f"{number}.cache"
        path.write_bytes(b"content")
        os.utime(path, (1000 + number, 1000 + number))
    (tmp_path / "other.timing").touch()
    os.utime(tmp_path / "other.timing", (1, 1))
    assert read_cache(tmp_path / "3.cache", "cache") == b"content"
    assert write_cache(tmp_path / "new.cache", b"new", "cache")
    prune_cache(tmp_path / "new.cache", "cache")
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"new.cache", "3.cache", "other.timing", *(f"{number}.cache" for number in range(10, 40))}


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """$XDG_CACHE_HOME precedes ~/.cache, and an empty one counts as unset."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big")
    assert cache_folder() == Path("/big/edge-resnet")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path("/home/someone/.cache/edge-resnet")
