"""The one walk over folders of images: what it finds, what it passes over, and that links cannot mislead it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.errors import DataError
from edge_resnet.images.imageset import open_images
from edge_resnet.images.walk import PassedOver, describe_passed_over, images_below, images_matching, list_folder
from edge_resnet.streaming.sources.imagefiles import ImagesSource


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path, format="JPEG")
    return path


def below(folder: Path) -> tuple[list[str], PassedOver]:
    passed_over = PassedOver()
    return [str(path.relative_to(folder)) for path in images_below(folder, passed_over)], passed_over


def test_what_other_programs_leave_is_counted_and_not_read(tmp_path: Path) -> None:
    """Thumbnails of a NAS, the resource forks of macOS, the bins of file systems and hidden files are no images."""
    put(tmp_path / "1.jpg")
    litter = ("__MACOSX/._1.jpg", "@eaDir/1.jpg/THUMB.jpg", ".thumbs/1.jpg", "lost+found/2.jpg", "#recycle/3.jpg", "._1.jpg")
    for name in litter:
        put(tmp_path / name)
    found, passed_over = below(tmp_path)
    assert found == ["1.jpg"]
    assert passed_over == {"hidden": 2, "__MACOSX/": 1, "@eaDir/": 1, "lost+found/": 1, "#recycle/": 1}


def test_linked_files_and_folders_are_read(tmp_path: Path) -> None:
    """Images that lie elsewhere count like others, wherever the link is."""
    put(tmp_path / "outside" / "deep" / "1.jpg")
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "more").symlink_to(tmp_path / "outside")
    (tmp_path / "set" / "cat" / "2.jpg").symlink_to(tmp_path / "outside" / "deep" / "1.jpg")
    assert below(tmp_path / "set" / "cat") == (["2.jpg", "more/deep/1.jpg"], {})
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "outside")
    assert open_images(tmp_path / "set").labels == (0, 0, 1)


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    """A circle of links gives every image once, and no class the images of the whole set."""
    for name in ("cat/1.jpg", "dog/2.jpg"):
        put(tmp_path / name)
    for name, target in (("cat/all", ".."), ("cat/self", "."), ("self", "."), ("dog/root", "/"), ("dog/loop", "loop")):
        (tmp_path / name).symlink_to(target)
    images = open_images(tmp_path)
    assert [Path(images.where(i)).name for i in range(len(images))] == ["1.jpg", "2.jpg"]
    assert images.class_names == ("cat", "dog")
    assert below(tmp_path / "dog")[1] == {"broken links": 1, "linked folders that were read already or lead back": 1}


def test_nothing_that_could_block_is_opened(tmp_path: Path) -> None:
    """A pipe with the name of an image is passed over."""
    put(tmp_path / "1.jpg")
    os.mkfifo(tmp_path / "2.jpg")
    assert below(tmp_path) == (["1.jpg"], {"pipes, sockets and devices": 1})
    with pytest.raises(DataError, match="not a regular file"):
        open_images(tmp_path / "2.jpg")


@pytest.mark.parametrize("name", ["1.jfif", "1.JPE", "1.gif"])
def test_endings_of_known_formats_are_images(tmp_path: Path, name: str) -> None:
    """Browsers save JPEG as .jfif: a data set and a source take it alike."""
    put(tmp_path / name)
    assert len(open_images(tmp_path)) == len(list(ImagesSource(str(tmp_path)))) == 1


def test_formats_that_are_not_supported_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Photographs of a phone are counted in the same line by a data set and by a source; alone, they are the error."""
    for index in range(3):
        (tmp_path / f"{index}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"no images among 3 \.heic \(not supported: convert to JPEG\)"):
        open_images(tmp_path)
    put(tmp_path / "4.jpg")
    (tmp_path / "notes.txt").touch()
    line = f"passed over in {tmp_path}: 3 .heic (not supported: convert to JPEG), 1 .txt"
    for open_it in (open_images, ImagesSource):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            open_it(str(tmp_path))
        assert caplog.messages == [line]


@pytest.mark.parametrize(("loose", "inside", "flat"), [(40, 3, True), (1, 6, False), (0, 2, False)])
def test_a_flat_set_with_a_folder_stays_flat(
    tmp_path: Path, loose: int, inside: int, flat: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of images beside a folder and those in it the larger part is the set, and the other is counted."""
    for index in range(loose):
        put(tmp_path / f"{index}.jpg")
    for index in range(inside):
        put(tmp_path / "rejected" / f"{index}.jpg")
    images = open_images(tmp_path)
    assert len(images) == (loose if flat else inside)
    assert (images.labels is None) == flat
    assert (f"{inside if flat else loose} images" in caplog.text) == (loose > 0)


def test_folders_named_by_label_are_classes_however_many_images_lie_beside_them(tmp_path: Path) -> None:
    """A name that matches says more than a count."""
    for name in ("1.jpg", "2.jpg", "cat/3.jpg"):
        put(tmp_path / name)
    assert open_images(tmp_path, label_names=["dog", "cat"]).labels == (1,)


def test_a_pattern_finds_images_through_links_once(tmp_path: Path) -> None:
    """``**`` follows linked folders, and a circle of them ends."""
    put(tmp_path / "outside" / "1.jpg")
    for name in ("set/a/2.jpg", "set/3.png.jpg", "set/b/c/4.jpg"):
        put(tmp_path / name)
    (tmp_path / "set" / "a" / "out").symlink_to(tmp_path / "outside")
    for name in ("set/a/x", "set/b/y", "set/b/c/z"):
        (tmp_path / name).symlink_to(tmp_path / "set")
    found = sorted(str(path.relative_to(tmp_path / "set")) for path in images_matching(f"{tmp_path}/set/**/*.jpg", PassedOver()))
    assert found == ["3.png.jpg", "a/2.jpg", "a/out/1.jpg", "b/c/4.jpg"]
    assert len(images_matching(f"{tmp_path}/set/**/c/*", PassedOver())) == 1
    assert len(images_matching(f"{tmp_path}/*/**", PassedOver())) == 5  # outside, and through the link


def test_the_line_is_short_however_many_kinds_there_are(tmp_path: Path) -> None:
    """A folder of everything gives one line of a few kinds and a sum, without the names of files."""
    for index in range(30):
        (tmp_path / f"file.{index}").touch()
    (tmp_path / "x.\x1b[31m").touch()
    passed_over = PassedOver()
    list_folder(tmp_path, passed_over)
    text = describe_passed_over(passed_over)
    assert text.endswith("23 others")
    assert "\x1b" not in text
    assert passed_over.total() == 31


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["abc", "a", "b/c", ".", ".."])), max_size=8))
def test_any_links_end_and_give_each_file_once(tmp_path_factory: pytest.TempPathFactory, links: list[tuple[str, str]]) -> None:
    """Whatever the links between folders, no real file is listed twice."""
    root = tmp_path_factory.mktemp("links")
    for name in ("a/1.jpg", "b/c/2.jpg"):
        put(root / name)
    for index, (at, target) in enumerate(links):
        folder = root / at if (root / at).is_dir() else root
        (folder / f"link{index}").symlink_to(root / target)
    found = images_below(root, PassedOver())
    assert len({path.resolve() for path in found}) == len(found) == 2
