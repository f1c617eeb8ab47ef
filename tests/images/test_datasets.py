"""Data sets by name, and their training and test parts; downloads are replaced by a port that refuses."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet.core.errors import DataError, MissingDependencyError
from edge_resnet.images.datasets import NAMES, load_named, open_data, open_pair
from edge_resnet.images.preprocess import ImageArray

WORDNET_IDS = [
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
]
IMAGENET_INDICES = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every download to a port that nothing listens on."""
    # urllib keeps the proxies that it found at its first call, for all later ones of the process.
    monkeypatch.setattr("urllib.request._opener", None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def noise(count: int, side: int = 32) -> ImageArray:
    return np.random.default_rng(0).integers(1, 256, (count, side, side, 3), dtype=np.uint8)


def test_digits_are_split_once_and_for_all() -> None:
    """The two parts hold each of the 1,797 digits once, a fifth of every class in the test part, the same each time."""
    pytest.importorskip("sklearn")
    train, test = load_named("digits", "train"), load_named("digits", "test")
    assert len(train) + len(test) == 1797
    assert train.labels is not None
    assert test.labels is not None
    shares = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert np.abs(shares - 0.2).max() < 0.005
    assert load_named("digits", "test").digest() == test.digest()
    assert test.class_names == tuple("0123456789")


def test_digits_are_the_sources_pixels_enlarged() -> None:
    """Averaged over each 4x4 block, an image follows the source's 8x8 values; the three channels are equal."""
    datasets = pytest.importorskip("sklearn.datasets")
    source = datasets.load_digits()
    train = load_named("digits", "train")
    image = train.load(0)
    assert image.shape == (32, 32, 3)
    assert (image[..., 0] == image[..., 2]).all()
    blocks = image[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) / 255 * 16
    nearest = int(np.abs(source.images - blocks).mean(axis=(1, 2)).argmin())
    assert train.labels is not None
    assert source.target[nearest] == train.labels[0]
    assert np.corrcoef(source.images[nearest].ravel(), blocks.ravel())[0, 1] > 0.95


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ImageArray]:
    """Write a small CIFAR-10 in its own format, and replace torchvision's checksums by those of these files."""
    cifar = pytest.importorskip("torchvision.datasets").CIFAR10
    folder = root / cifar.base_folder
    folder.mkdir(parents=True)
    sums: dict[str, str] = {}

    def put(name: str, content: object) -> None:
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()

    images = {"train": noise(6), "test": noise(4)[::-1]}
    for name, part in (("data_batch_1", "train"), ("test_batch", "test")):
        put(name, {"data": images[part].transpose(0, 3, 1, 2).reshape(-1, 3072), "labels": list(range(len(images[part])))})
    put("batches.meta", {"label_names": ["airplane", "automobile"]})
    monkeypatch.setattr(cifar, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": sums["batches.meta"]})
    return images


def test_cifar10_comes_channels_last_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both parts are read as (N, 32, 32, 3) with their labels, without a download or output on stdout."""
    images = write_cifar(tmp_path, monkeypatch)
    for split in ("train", "test"):
        found = load_named(split=split, name="cifar10", root=tmp_path)
        assert all(np.array_equal(found.load(i), images[split][i]) for i in range(len(found)))
        assert found.labels == tuple(range(len(images[split])))
        assert found.class_names == ("airplane", "automobile")
    assert capsys.readouterr().out == ""


def test_the_cache_lies_where_the_desktop_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a root, sets are expected below XDG_CACHE_HOME."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_cifar(tmp_path / "edge-resnet" / "datasets", monkeypatch)
    assert len(load_named("cifar10", "test")) == 4


@pytest.mark.parametrize("split", ["train", "test"])
def test_imagenette_carries_imagenets_indices(tmp_path: Path, split: str) -> None:
    """The ten folders, in order, are the ten ImageNet classes, and ``test`` is the folder val."""
    for name in WORDNET_IDS:
        folder = tmp_path / "imagenette2-320" / ("train" if split == "train" else "val") / name
        folder.mkdir(parents=True)
        Image.new("RGB", (3, 3)).save(folder / "image.JPEG")
    found = load_named("imagenette", split, tmp_path)
    assert found.labels == IMAGENET_INDICES
    assert [Path(found.where(i)).parent.name for i in range(10)] == WORDNET_IDS


def test_imagenettes_indices_are_imagenets(real_data: Path) -> None:
    """The table agrees with the list of ImageNet's WordNet ids."""
    synsets = (real_data / "labels" / "imagenet_synsets.txt").read_text().split()
    assert tuple(synsets.index(name) for name in WORDNET_IDS) == IMAGENET_INDICES


def test_a_folder_that_is_not_imagenette_is_refused(tmp_path: Path) -> None:
    """A flat folder of images under Imagenette's name is an error, not a set without labels."""
    folder = tmp_path / "imagenette2-320" / "val"
    folder.mkdir(parents=True)
    Image.new("RGB", (3, 3)).save(folder / "image.png")
    with pytest.raises(DataError, match="ten classes"):
        load_named("imagenette", "test", tmp_path)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("name", "url"), [("cifar10", "cs.toronto.edu"), ("imagenette", "imagenette2-320.tgz")])
def test_a_failed_download_says_what_and_where_to_put_it(tmp_path: Path, name: str, url: str) -> None:
    """Without a network the error names the address, and the hint the folder."""
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match=url) as caught:
        load_named(name, "test", tmp_path / "sets")
    assert str(tmp_path / "sets") in caught.value.hint


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """A file where the cache folder should be is found before anything is downloaded."""
    pytest.importorskip("torchvision")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="CIFAR-10"):
        load_named("cifar10", "test", tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("digits", "sklearn.datasets", "demo"),
        ("cifar10", "torchvision.datasets", "build"),
        ("imagenette", "torchvision.datasets", "build"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    """If the package is missing, the hint is the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match="is not installed") as caught:
        load_named(name, "test", tmp_path)
    assert f"edge-resnet[{extra}]" in caught.value.hint


def test_unknown_names_and_parts_are_refused() -> None:
    """The hints list the valid choices."""
    with pytest.raises(DataError, match="mnist") as caught:
        load_named("mnist", "test")
    assert all(name in caught.value.hint for name in NAMES)
    with pytest.raises(DataError, match="validation"):
        load_named("digits", "validation")  # type: ignore[arg-type]


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called digits is opened, matched with the labels given, and not mistaken for the set of that name."""
    (tmp_path / "digits" / "cat").mkdir(parents=True)
    Image.new("RGB", (3, 3)).save(tmp_path / "digits" / "cat" / "image.png")
    monkeypatch.chdir(tmp_path)
    assert open_data("digits", split="test", label_names=["dog", "cat"]).labels == (1,)


def test_a_name_is_opened_where_no_path_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name alone gives the part asked for."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    assert open_data("digits", split="test").name == "digits-test"


def test_what_is_neither_lists_both(tmp_path: Path) -> None:
    """The error for a misspelt argument lists the names and the kinds of path."""
    with pytest.raises(DataError, match="neither a path nor a set") as caught:
        open_data(str(tmp_path / "absent"), split="test")
    assert all(word in caught.value.hint for word in (*NAMES, "CSV", ".npz", "class folders"))


def class_folders(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name / "image.png")
    return root


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_a_pair_of_class_folders(tmp_path: Path, held_out: str) -> None:
    """A folder with train and val, by any of its names, gives both parts with the same indices."""
    class_folders(tmp_path / "train", "cat", "dog")
    class_folders(tmp_path / held_out, "cat", "dog")
    train, test = open_pair(str(tmp_path))
    assert test is not None
    assert train.labels == test.labels == (0, 1)
    assert train.class_names == test.class_names == ("cat", "dog")
    assert held_out in test.where(0)


@pytest.mark.parametrize(
    ("tested", "said"),
    [(("cat", "fox"), "dog only in train, fox only in val"), (("cat",), "dog only in train"), (("cat", "dog", "emu"), "emu")],
)
def test_class_folders_that_differ_are_named(tmp_path: Path, tested: tuple[str, ...], said: str) -> None:
    """A class that one part lacks would shift the indices of all classes after it."""
    class_folders(tmp_path / "train", "cat", "dog")
    class_folders(tmp_path / "val", *tested)
    with pytest.raises(DataError, match=said):
        open_pair(str(tmp_path))


def test_a_pair_of_archives(tmp_path: Path) -> None:
    """One *train.npz and one *test.npz in a folder are the two parts; a second pair is too many."""
    for name, count in (("x_train", 3), ("x_test", 2)):
        np.savez(tmp_path / f"{name}.npz", images=noise(count), labels=np.arange(count))
    train, test = open_pair(str(tmp_path))
    assert test is not None
    assert (len(train), len(test)) == (3, 2)
    np.savez(tmp_path / "y_train.npz", images=noise(1), labels=np.arange(1))
    with pytest.raises(DataError, match="which to train on") as caught:
        open_pair(str(tmp_path))
    assert "--val-data" in caught.value.hint


def test_one_part_alone_and_one_from_elsewhere(tmp_path: Path) -> None:
    """A set without a second part has no test images, unless they are named."""
    for name, count in (("mine", 3), ("others", 2)):
        np.savez(tmp_path / f"{name}.npz", images=noise(count), labels=np.arange(count))
    alone = open_pair(str(tmp_path / "mine.npz"))
    assert (len(alone[0]), alone[1]) == (3, None)
    train, test = open_pair(str(tmp_path / "mine.npz"), str(tmp_path / "others.npz"))
    assert test is not None
    assert (len(train), len(test)) == (3, 2)
    folders = class_folders(tmp_path / "plain", "cat", "dog")
    assert open_pair(str(folders))[1] is None


def test_a_name_has_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """digits is split as everywhere; a folder of that name wins, as everywhere."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    train, test = open_pair("digits")
    assert test is not None
    assert (train.name, test.name) == ("digits-train", "digits-test")
    class_folders(tmp_path / "digits", "one", "two")
    assert open_pair("digits")[0].class_names == ("one", "two")


def test_both_parts_meet_the_networks_labels(tmp_path: Path) -> None:
    """Given a network's labels, the class folders of training and test images are numbered by these and not by their order."""
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (2, 2)).save(tmp_path / part / name / "1.png")
    train, test = open_pair(str(tmp_path), label_names=("dog", "cow", "cat"))
    assert test is not None
    assert train.labels == test.labels == (2, 0)
