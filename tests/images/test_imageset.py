"""Image sets: opening, order, digest, sampling, batches and the checks that eval and calibration use."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.imageset import (
    ImageSet,
    balanced_sample,
    batches,
    check_labels,
    from_arrays,
    open_images,
    require_labels,
    require_several,
)
from edge_resnet.images.preprocess import preprocess

SPEC = Preprocess(resize=8, crop=8)


def array_set(labels: list[int] | None = None, count: int = 10) -> ImageSet:
    count = count if labels is None else len(labels)
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return from_arrays("some", images, labels)


def file_set(folder: Path, count: int, bad: tuple[int, ...] = ()) -> ImageSet:
    """Images 000.png, 001.png … in one colour each, of which the ``bad`` are broken."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        path = folder / f"{index:03}.png"
        Image.new("RGB", (12, 10), (index, index, index)).save(path)
        if index in bad:
            path.write_bytes(path.read_bytes()[:40])
    return open_images(folder)


def test_every_kind_of_path_opens(tmp_path: Path) -> None:
    """Class folders, a flat folder, a CSV, an .npz and one image give the same pixels, and where they are stored."""
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    for path in (tmp_path / "classes" / "cat" / "a.png", tmp_path / "a.png"):
        Image.fromarray(image).save(path)
    (tmp_path / "list.csv").write_text("file,class_index\na.png,0\n")
    np.savez(tmp_path / "set.npz", images=image[None], labels=np.array([0]))
    (tmp_path / "flat").mkdir()
    Image.fromarray(image).save(tmp_path / "flat" / "a.png")
    for name, labels in (("classes", (0,)), ("flat", None), ("list.csv", (0,)), ("set.npz", (0,)), ("a.png", None)):
        images = open_images(str(tmp_path / name))
        assert len(images) == 1
        assert images.labels == labels
        assert np.array_equal(images.load(0), image)
        assert images.where(0).endswith("set.npz[0]" if name == "set.npz" else "a.png")
        assert images.name == Path(name).stem


def test_label_names_reach_the_class_folders(tmp_path: Path) -> None:
    """The network's labels decide the indices of class folders, and become the set's class names."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name / "a.png")
    assert open_images(tmp_path).labels == (0, 1)
    images = open_images(tmp_path, label_names=["dog", "cow", "cat"])
    assert images.labels == (2, 0)
    assert images.class_names == ("dog", "cow", "cat")


@pytest.mark.parametrize("name", ["absent", "text.txt", "text.csv", "text.npz", "text.png", "binary.csv", "x" * 300])
def test_what_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    """Missing, unreadable, non-image and damaged files are DataErrors with a hint, whatever their ending."""
    for text in ("text.txt", "text.csv", "text.npz", "text.png"):
        (tmp_path / text).write_text("only words")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x80\x81\n")
    with pytest.raises(DataError) as caught:
        open_images(tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    """A class folder that may not be read is an error, not an empty class."""
    (tmp_path / "cat").mkdir(mode=0)
    with pytest.raises(DataError, match="cannot be read"):
        open_images(tmp_path)


def test_a_subset_keeps_images_and_labels_together() -> None:
    """Any order, with repetitions, of arrays or of a subset, gives the images of these indices."""
    images = array_set([5, 6, 7, 8])
    part = images.subset(np.array([3, 1, 1, 0])).subset([0, 2])
    assert part.labels == (8, 6)
    assert np.array_equal(part.load(1), images.load(1))
    assert [part.where(i) for i in range(2)] == ["some[3]", "some[1]"]


def test_a_loaded_image_is_the_callers() -> None:
    """Writing into an image does not change the set."""
    images = array_set()
    images.load(0)[:] = 0
    assert images.load(0).any()


def test_the_digest_follows_content_order_and_labels_and_not_names(tmp_path: Path) -> None:
    """Renaming keeps the digest; another order, label or byte changes it."""
    images = file_set(tmp_path / "one", 3)
    same = file_set(tmp_path / "other name", 3)
    assert images.digest() == same.digest()
    assert len(images.digest()) == 64
    assert images.digest() != images.subset([1, 0, 2]).digest()
    labelled = ImageSet(images.name, images.source, (0, 1, 2))
    assert len({images.digest(), labelled.digest(), ImageSet(images.name, images.source, (0, 1, 1)).digest()}) == 3
    Image.new("RGB", (12, 10), (200, 0, 0)).save(tmp_path / "other name" / "002.png")
    assert images.digest() != same.digest()


def test_the_digest_of_arrays_sees_pixels_and_shape() -> None:
    """The same bytes in another shape are another set; the same pixels the same one."""
    pixels = np.zeros((2, 4, 8, 3), np.uint8)
    assert from_arrays("a", pixels).digest() == from_arrays("b", pixels.copy()).digest()
    assert from_arrays("a", pixels).digest() != from_arrays("a", pixels.reshape(2, 8, 4, 3)).digest()


def test_the_digest_of_a_vanished_file_names_it(tmp_path: Path) -> None:
    """A file that is gone since the set was opened is a DataError."""
    images = file_set(tmp_path / "set", 2)
    Path(images.where(1)).unlink()
    with pytest.raises(DataError, match=r"001\.png"):
        images.digest()


def test_arrays_of_another_kind_are_refused() -> None:
    """A set is made of (N, H, W, 3) uint8 and integer labels only."""
    with pytest.raises(DataError, match="float64"):
        from_arrays("a", np.zeros((2, 4, 4, 3)), [0, 1])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="labels"):
        from_arrays("a", np.zeros((2, 4, 4, 3), np.uint8), [0, 1, 2])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 9))
def test_a_sample_is_as_balanced_as_the_set_allows(labels: list[int], count: int, seed: int) -> None:
    """No image twice, never too many, and a class has fewer images than another only if it is exhausted."""
    images = array_set(labels)
    sample = images.subset(balanced_sample(images, count, seed))
    places = [sample.where(i) for i in range(len(sample))]
    assert len(set(places)) == len(places) == min(count, len(labels))
    taken, there = Counter(sample.labels), Counter(labels)
    fullest = max(taken.values())
    assert all(taken[label] == there[label] or taken[label] >= fullest - 1 for label in there)
    assert all(images.where(int(place[5:-1])) == place and labels[int(place[5:-1])] == label
               for place, label in zip(places, sample.labels or (), strict=True))  # fmt: skip


def test_a_sample_depends_on_the_seed_alone() -> None:
    """The same seed draws the same images in every process, another seed others; also from unlabelled sets."""
    images = array_set(count=10)
    assert balanced_sample(images, 4, seed=0) == [4, 6, 2, 7]  # numpy promises that PCG64 and its permutation stay
    assert balanced_sample(images, 4, seed=1) != [4, 6, 2, 7]


def test_a_sample_of_nothing_is_refused() -> None:
    """A count below 1 is refused."""
    with pytest.raises(ConfigError):
        balanced_sample(array_set(), 0, 0)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 23])
def test_batches_give_every_image_once_in_order(tmp_path: Path, count: int) -> None:
    """Files come preprocessed, in order, with their indices, the last batch ragged."""
    images = file_set(tmp_path / "set", count)
    served = list(batches(images, SPEC, 4))
    assert [len(batch.images) for batch in served] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert np.concatenate([batch.indices for batch in served]).tolist() == list(range(count))
    pixels = np.concatenate([batch.images for batch in served])
    assert np.array_equal(pixels, np.stack([preprocess(images.load(i), SPEC) for i in range(count)]))
    assert pixels.dtype == np.uint8
    assert all(batch.labels is None for batch in served)


def test_batches_of_arrays_carry_their_labels() -> None:
    """Labels go with the images of a subset; the pixels need no resize and stay as they are."""
    images = array_set([0, 1, 2, 3, 4]).subset([4, 2, 0])
    (batch,) = batches(images, SPEC, 8)
    assert batch.labels is not None
    assert batch.labels.dtype == np.int64
    assert batch.labels.tolist() == [4, 2, 0]
    assert np.array_equal(batch.images[1], images.load(1))


def test_a_damaged_image_is_skipped_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One bad file of thirty is skipped, batches stay full, and both the log and the caller learn which it is."""
    images = file_set(tmp_path / "set", 30, bad=(3,))
    skipped: list[str] = []
    with caplog.at_level(logging.WARNING):
        served = list(batches(images, SPEC, 5, skipped=skipped))
    assert skipped == [str(tmp_path / "set" / "003.png")]
    assert "003.png" in caplog.text
    assert [len(batch.images) for batch in served] == [5, 5, 5, 5, 5, 4]
    assert 3 not in np.concatenate([batch.indices for batch in served])


@pytest.mark.parametrize(
    ("count", "bad", "fails"), [(40, 2, False), (40, 3, True), (2, 1, False), (1, 1, True), (3, 2, True), (19, 1, False)]
)
def test_too_many_damaged_images_are_an_error(tmp_path: Path, count: int, bad: int, fails: bool) -> None:
    """Two or more above 5 % of the set, or all of it, stop the work with an error that counts them."""
    images = file_set(tmp_path / "set", count, bad=tuple(range(bad)))
    if not fails:
        assert sum(len(batch.images) for batch in batches(images, SPEC, 4)) == count - bad
        return
    with pytest.raises(DataError, match=f"{bad} of the {count} images") as caught:
        list(batches(images, SPEC, 4))
    assert caught.value.hint


def test_a_set_of_broken_images_fails_before_it_is_read_through(tmp_path: Path) -> None:
    """It is clear that a set is bad once 5 % are: the rest is not tried."""
    skipped: list[str] = []
    with pytest.raises(DataError):
        list(batches(file_set(tmp_path / "set", 100, bad=tuple(range(100))), SPEC, 4, skipped=skipped))
    assert len(skipped) == 6


def test_a_reader_that_stops_early_leaves_no_threads(tmp_path: Path) -> None:
    """Closing the iterator ends its threads."""
    images = file_set(tmp_path / "set", 60)
    before = threading.active_count()
    running = batches(images, SPEC, 4)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_batch_of_nothing_is_refused_at_the_call() -> None:
    """A size below 1 is an error before the first image is read."""
    with pytest.raises(ConfigError):
        batches(array_set(), SPEC, 0)


def test_labels_are_checked_against_the_network() -> None:
    """A class beyond the network's is an error that names the image; a set without labels passes."""
    check_labels(array_set([0, 9]), 10)
    check_labels(array_set(), 1)
    with pytest.raises(DataError, match=r"some\[1\] has class 10, the network knows 0\.\.9"):
        check_labels(array_set([0, 10]), 10)


def test_what_eval_and_calibration_need_is_checked() -> None:
    """Labels and a number of images can be required."""
    assert require_labels(array_set([1, 0])) == (1, 0)
    require_several(array_set(count=2))
    with pytest.raises(DataError, match="no labels"):
        require_labels(array_set())
    with pytest.raises(DataError, match="has 1 of the 2 images"):
        require_several(array_set(count=1))
    with pytest.raises(DataError, match="of the 16"):
        require_several(array_set(count=3), minimum=16)


def test_importing_loads_no_heavy_package() -> None:
    """The online side reads images without torch, cv2 or onnx."""
    code = (
        "import sys, edge_resnet.images.imageset; print([m for m in ('torch', 'cv2', 'onnx', 'torchvision') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_real_images_open_from_their_csv(real_data: Path) -> None:
    """The 500 ImageNet images have every second class, and a sample of them is served at the usual size."""
    images = open_images(real_data / "imagenet" / "sample500.csv")
    assert len(images) == 500
    check_labels(images, 1000)
    assert len(set(require_labels(images))) == 500
    (batch,) = batches(images.subset(balanced_sample(images, 8, seed=0)), Preprocess(), 8)
    assert batch.images.shape == (8, 224, 224, 3)


def test_real_sheets_are_the_tiles_they_should_be(real_data: Path) -> None:
    """A lossless WebP sheet is decoded to the same bytes each time, whatever thread does it."""
    path = real_data / "cifar10" / "test_00.webp"
    images = open_images(path)
    first = hashlib.sha256(images.load(0).tobytes()).hexdigest()
    (batch,) = batches(images.subset([0, 0]), Preprocess(resize=800, crop=800), 2)
    assert hashlib.sha256(images.load(0).tobytes()).hexdigest() == first
    assert np.array_equal(batch.images[0], images.load(0)[:, 240:1040])
