"""Layouts of images on disk: folders, CSV files and NPZ archives, valid and damaged."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.errors import DataError
from edge_resnet.images import layout
from edge_resnet.images.layout import ImageListing, check_pixels, checked_labels, read_csv, read_folder, read_npz

IMAGENETTE_IDS = ["n01440764", "n02102040", "n02979186"]


def put(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (value, value, value)).save(path)
    return path


def class_folders(root: Path, *names: str) -> Path:
    for name in names:
        put(root / name / "image.png")
    return root


def pixels(count: int = 3, side: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def by_folder(listing: ImageListing) -> dict[str, int]:
    assert listing.labels is not None
    return {path.parent.name: label for path, label in zip(listing.files, listing.labels, strict=True)}


def test_class_folders_are_listed_as_torchvision_lists_them(tmp_path: Path) -> None:
    """Files, their order and their classes equal ImageFolder's, nested files and upper-case endings included."""
    folder_reader = pytest.importorskip("torchvision.datasets").ImageFolder
    for name in ("b/2.png", "b/1.JPG", "a/deep/er/x.png", "a/y.webp", "C/z.bmp", "a/deep/w.ppm"):
        put(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "readme.md").write_text("no class")
    reference = folder_reader(tmp_path)
    listing = read_folder(tmp_path, None)
    assert listing.labels is not None
    assert [(str(path), label) for path, label in zip(listing.files, listing.labels, strict=True)] == reference.samples
    assert list(listing.class_names) == reference.classes


def test_an_empty_class_folder_keeps_its_index_and_one_of_other_files_is_no_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A class without images does not shift the classes after it, and is named; the results of a training are no class."""
    class_folders(tmp_path, "a", "d")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "weights.safetensors").touch()
    listing = read_folder(tmp_path, None)
    assert by_folder(listing) == {"a": 0, "d": 2}
    assert listing.class_names == ("a", "b", "d")
    assert caplog.messages[0].endswith("without images: b")
    assert "1 folder(s) without images" in caplog.messages[1]


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    """What other programs leave behind (.cache, ._image.png) makes neither classes nor images."""
    class_folders(tmp_path, "a", ".cache")
    put(tmp_path / "a" / "._image.png")
    listing = read_folder(tmp_path, None)
    assert len(listing.files) == 1
    assert listing.class_names == ("a",)


def test_a_flat_folder_is_listed_by_name_without_labels(tmp_path: Path) -> None:
    """Images beside each other have an order and no classes."""
    for name in ("c.png", "a.png", "b.jpeg"):
        put(tmp_path / name)
    (tmp_path / "empty").mkdir()
    listing = read_folder(tmp_path, ["x", "y"])
    assert [path.name for path in listing.files] == ["a.png", "b.jpeg", "c.png"]
    assert listing.labels is None
    assert listing.class_names == ()


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["cat", "dog"], ["dog", "fish", "cat"], {"cat": 2, "dog": 0}),
        (["great_white_shark", "Tench"], ["tench, Tinca tinca", "goldfish", "great white shark, white shark"],
         {"Tench": 0, "great_white_shark": 2}),
        (IMAGENETTE_IDS[1:], ["n01440764 tench", "n01443537", "n02979186 cassette player", "n02102040 spaniel"],
         {"n02102040": 3, "n02979186": 2}),
        (["10", "2"], [f"label {i}" for i in range(12)], {"10": 10, "2": 2}),
        (["1", "10", "2"], ["1", "10", "2"], {"1": 0, "10": 1, "2": 2}),
        (IMAGENETTE_IDS, ["tench", "English springer", "cassette player"], dict(zip(IMAGENETTE_IDS, range(3), strict=True))),
    ],
    ids=["names", "synonyms", "wordnet ids", "integers", "names before integers", "as many folders as labels"],
)  # fmt: skip
def test_class_folders_meet_the_networks_labels(
    tmp_path: Path, names: list[str], labels: list[str], expected: dict[str, int]
) -> None:
    """Folders find their label by name, WordNet id or number, and only then by order."""
    assert by_folder(read_folder(class_folders(tmp_path, *names), labels)) == expected


@pytest.mark.parametrize(
    ("names", "labels"),
    [(IMAGENETTE_IDS, ["tench", "goldfish"]), (["crane"], ["crane", "heron", "crane"])],
    ids=["ids without ids", "a name of two classes"],
)
def test_class_folders_that_fit_no_label_are_refused(tmp_path: Path, names: list[str], labels: list[str]) -> None:
    """A guess would silently give a wrong accuracy, so a folder without a label is an error that names it."""
    with pytest.raises(DataError, match="matches none of the network's") as caught:
        read_folder(class_folders(tmp_path, *names), labels)
    assert "CSV" in caught.value.hint


def test_the_parts_of_a_data_set_are_not_taken_for_classes(tmp_path: Path) -> None:
    """A folder of train and val is an error whose hint is a folder below."""
    for part in ("train", "val"):
        class_folders(tmp_path / part, "cat", "dog")
    with pytest.raises(DataError, match="train, val") as caught:
        read_folder(tmp_path, None)
    assert str(tmp_path / "val") in caught.value.hint


@pytest.mark.parametrize("inside", [[], ["notes.txt"], ["a/notes.txt"]])
def test_folders_without_images_are_refused(tmp_path: Path, inside: list[str]) -> None:
    """An empty folder, one of text, and class folders of text are errors that name the folder."""
    for name in inside:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    with pytest.raises(DataError, match="holds no images"):
        read_folder(tmp_path, None)


def test_a_csv_finds_its_images_in_its_folder_and_beside_it(tmp_path: Path) -> None:
    """Order and classes are the CSV's, further columns are ignored, a byte-order mark is no part of a name."""
    inside, beside = put(tmp_path / "set" / "a.png"), put(tmp_path / "b.png")
    (tmp_path / "set.csv").write_text("\ufeffname,class_index,file\nx, 7 ,b.png\n\ny,0,a.png\n", encoding="utf-8")
    listing = read_csv(tmp_path / "set.csv")
    assert listing.files == (beside, inside)
    assert listing.labels == (7, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column file"),
        ("file,class_index\na.png,0\na.png,1\n", "names a.png with the classes 0 and 1"),
        ("file,label\na.png,1\n", "has no column class_index"),
        ("path,class_index\na.png,1\n", "has no column file"),
        ("file,class_index\n", "names no images"),
        ("file,class_index\na.png,cat\n", "line 2: class_index 'cat'"),
        ("file,class_index\na.png,1\na.png,1.0\n", "line 3: class_index '1.0'"),
        ("file,class_index\na.png,-1\n", "class_index '-1'"),
        ("file,class_index\na.png\n", "class_index ''"),
        ("class_index,file\n1\n", "names ''"),
        ("file,class_index\na.png,99999999999999999999\n", "is not an integer"),
        ("file,class_index\na.png,1\nb.png,1\n", "names 'b.png', which does not exist"),
    ],
)
def test_a_faulty_csv_says_what_and_where(tmp_path: Path, content: str, message: str) -> None:
    """Each fault of a CSV is an error that names it."""
    put(tmp_path / "a.png")
    (tmp_path / "set.csv").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_csv(tmp_path / "set.csv")
    assert caught.value.hint


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_gives_what_was_saved(tmp_path: Path, save: object) -> None:
    """Mapped or unpacked, pixels and labels come back unchanged."""
    path, images = tmp_path / "set.npz", pixels()
    save(path, labels=np.array([2, 0, 1]), images=images, more=np.zeros(5))  # type: ignore[operator]
    found, labels = read_npz(path)
    assert np.array_equal(found, images)
    assert labels == (2, 0, 1)


def test_stored_images_are_mapped_and_not_read(tmp_path: Path) -> None:
    """An uncompressed array stays on disk until its pixels are asked for; column-major ones are read."""
    np.savez(tmp_path / "plain.npz", images=pixels())
    np.savez(tmp_path / "columns.npz", images=np.asfortranarray(pixels()))
    assert isinstance(read_npz(tmp_path / "plain.npz")[0], np.memmap)
    assert np.array_equal(read_npz(tmp_path / "columns.npz")[0], pixels())
    assert read_npz(tmp_path / "plain.npz")[1] is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": pixels()}, "has no array named images"),
        ({"images": pixels().astype(np.float32)}, "are float32, not uint8"),
        ({"images": pixels().transpose(0, 3, 1, 2)}, "not .N, H, W, 3."),
        ({"images": pixels()[0]}, "not .N, H, W, 3."),
        ({"images": pixels()[:0]}, "not .N, H, W, 3."),
        ({"images": pixels(), "labels": np.array([0.0, 1.0, 2.0])}, "are float64 .3,., not integers"),
        ({"images": pixels(), "labels": np.array([0, 1])}, "not integers .3,."),
        ({"images": pixels(), "labels": np.array([0, -1, 1])}, "run from -1 to 1"),
        ({"images": pixels(), "labels": np.array([0, 1, 2**63], np.uint64)}, "run from 0"),
        ({"images": np.array([None, 1])}, "are object, not uint8"),
        ({"images": pixels(), "labels": np.array([None, 1, 2])}, "is not a valid .npz"),
    ],
)
def test_a_faulty_npz_says_what_is_wrong(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    """Wrong names, dtypes, shapes, labels and pickled arrays are errors with a hint; nothing is unpickled."""
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_npz(tmp_path / "set.npz")
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"no archive", pickle.dumps([1, 2]), b"PK\x03\x04 cut short"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    """Text, a bare pickle and a truncated zip are errors that name the file."""
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"set\.npz is not a valid"):
        read_npz(tmp_path / "set.npz")


def test_an_array_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    """A header may claim terabytes; it is refused unless the bytes are there."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)})
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "set.npz", "w", method) as archive:
            archive.writestr("images.npy", header.getvalue() + b"few")
        with pytest.raises(DataError, match="does not have the length in its header"):
            read_npz(tmp_path / "set.npz")


@pytest.mark.parametrize("name", ["images", "labels"])
def test_what_unpacks_to_far_more_than_its_size_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Zeros that shrink to a thousandth are refused by the sizes in the archive; the same array uncompressed is mapped."""
    monkeypatch.setattr(layout, "_ALWAYS_UNPACKED_BYTES", 1 << 16)
    arrays = {"images": np.zeros((20_000, 2, 2, 3), np.uint8), "labels": np.zeros(20_000, np.int64)}
    if name == "labels":
        arrays["images"] = np.random.default_rng(0).integers(0, 256, (20_000, 2, 2, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    np.savez(tmp_path / "plain.npz", **arrays)
    with pytest.raises(DataError, match="would unpack to") as caught:
        read_npz(tmp_path / "small.npz")
    assert "does not compress" in caught.value.hint
    assert isinstance(read_npz(tmp_path / "plain.npz")[0], np.memmap)


def test_a_set_has_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More images than any set has, and a CSV larger than a list of them, are refused before they are listed."""
    monkeypatch.setattr(layout, "_MAX_IMAGES", 2)
    np.savez(tmp_path / "set.npz", images=pixels(3))
    with pytest.raises(DataError, match="holds 3 images, more than 2"):
        read_npz(tmp_path / "set.npz")
    put(tmp_path / "a.png")
    (tmp_path / "set.csv").write_text("file,class_index\n" + "a.png,0\n" * 20)
    monkeypatch.setattr(layout, "_MAX_CSV_BYTES", 100)
    with pytest.raises(DataError, match="larger than"):
        read_csv(tmp_path / "set.csv")


@example(True, [(496, 2)])  # sends zipfile to a place before the file's beginning
@given(st.booleans(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_archives_give_images_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, small: bool, hits: list[tuple[int, int]]
) -> None:
    """Whatever bytes are changed, reading ends in images of the right kind or in a DataError."""
    buffer = io.BytesIO()
    (np.savez_compressed if small else np.savez)(buffer, images=pixels(2), labels=np.array([0, 1]))
    content = bytearray(buffer.getvalue())
    for place, value in hits:
        content[place % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        found = read_npz(path)[0]
    except DataError:
        return
    assert found.dtype == np.uint8
    assert found.shape[3] == 3


def test_pixels_and_labels_of_the_right_kind_pass() -> None:
    """The two checks accept what the readers return."""
    check_pixels("here", (1, 1, 1, 3), np.dtype(np.uint8))
    assert checked_labels("here", np.array([3, 1], np.uint8), 2) == (3, 1)
    assert checked_labels("here", np.zeros(0, np.int64), 0) == ()
