"""Files are written completely, or stay as they were."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_resnet.core.errors import BuildError
from edge_resnet.core.files import cache_folder, check_free, replace_files, write_together, write_whole


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


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """$XDG_CACHE_HOME precedes ~/.cache, and an empty one counts as unset."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big")
    assert cache_folder() == Path("/big/edge-resnet")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path("/home/someone/.cache/edge-resnet")
