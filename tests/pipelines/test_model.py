"""What ``load`` gives: every kind of image, colours, batches, threads, and what is refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import BackendError, ConfigError, DataError, EdgeResnetError
from edge_resnet.images.imageset import ImageSet, open_images
from edge_resnet.pipelines.model import Classification, Model, open_model
from edge_resnet.runtime.postprocess import softmax, top_k


@pytest.fixture(scope="module")
def model(tiny_artifacts: dict[str, Artifact]) -> Iterator[Model]:
    """The tiny FP32 artifact on ONNX Runtime."""
    with open_model(tiny_artifacts["fp32"].folder, backend="onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="module")
def images(smooth_images: Path) -> ImageSet:
    """Sixty-four images of 40 x 48 pixels."""
    return open_images(smooth_images)


@pytest.fixture(scope="module")
def photo(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of them as a PNG."""
    path = tmp_path_factory.mktemp("photo") / "wave.png"
    Image.fromarray(images.load(3)).save(path)
    return path


def test_every_kind_of_image_has_the_same_answer(model: Model, images: ImageSet, photo: Path) -> None:
    """A path, its string, a Pillow image, an RGB array, and a BGR one."""
    array = images.load(3)
    with Image.open(photo) as opened:
        opened.load()
    expected = model.predict(photo).top
    assert len(expected) == 5
    assert model.predict(str(photo)).top == expected
    assert model.predict(opened).top == expected
    assert model.predict(array).top == expected
    assert model.predict(np.ascontiguousarray(array[..., ::-1]), color="bgr").top == expected
    assert model.predict(array[..., ::-1], color="bgr").top == expected  # a view with a negative stride
    assert model.predict(array, color="bgr").top != expected


def test_the_source_says_which_image(model: Model, images: ImageSet, photo: Path) -> None:
    """The path of a file, also of one that Pillow opened; the place of an array."""
    with Image.open(photo) as opened:
        found = list(model.predict_many([str(photo), opened, images.load(0)]))
    assert [one.source for one in found] == [str(photo), str(photo), "image[2]"]
    assert model.predict(photo).source == str(photo)
    assert model.predict(images.load(0)).source == "image[0]"
    assert [one.source for one in model.predict_many(images.subset([5, 6]))] == [images.where(5), images.where(6)]


def test_one_many_and_logits_agree(model: Model, images: ImageSet) -> None:
    """Whatever the batch, ``predict``, ``predict_many`` and ``logits`` say the same of an image."""
    arrays = [images.load(index) for index in range(11)]
    one_by_one = [model.predict(array) for array in arrays]
    logits = model.logits(arrays)
    assert logits.shape == (11, 10)
    assert logits.dtype == np.float32
    for batch in (1, 4, 11, 50):
        _same(list(model.predict_many(arrays, batch=batch)), one_by_one)
    _same(list(model.predict_many(images.subset(range(11)), batch=3)), one_by_one)
    _same(list(model.predict_many(iter(arrays), batch=3)), one_by_one)
    best = [top_k(row, model.labels) for row in logits]
    assert [[score.class_index for score in top] for top in best] == [_classes(one) for one in one_by_one]
    assert [one.top[0].probability for one in one_by_one] == pytest.approx(softmax(logits).max(axis=1), rel=1e-4)


def test_logits_of_one_image_of_several_and_of_a_stack(model: Model, images: ImageSet, photo: Path) -> None:
    """One image is N = 1; an array of four dimensions is N images; colours hold for both."""
    stack = np.stack([images.load(index) for index in range(3)])
    assert model.logits(photo).shape == model.logits(stack[0]).shape == (1, 10)
    np.testing.assert_allclose(model.logits(stack), model.logits([*stack]), rtol=1e-5)
    np.testing.assert_allclose(model.logits(stack[..., ::-1], color="bgr"), model.logits(stack), rtol=1e-5)
    np.testing.assert_allclose(model.logits((str(photo), photo))[0], model.logits(stack[:1] * 0 + images.load(3))[0], rtol=1e-4)


def test_top_is_the_number_of_classes(model: Model, images: ImageSet) -> None:
    """As many as asked for, no more than there are, best first."""
    array = images.load(0)
    assert [len(model.predict(array, top=top).top) for top in (1, 3, 10, 99)] == [1, 3, 10, 10]
    scores = model.predict(array, top=10).top
    assert [score.probability for score in scores] == sorted((score.probability for score in scores), reverse=True)
    assert sum(score.probability for score in scores) == pytest.approx(1.0, abs=1e-5)
    assert {score.label for score in scores} == set(model.labels)
    assert [len(one.top) for one in model.predict_many([array, array], top=2)] == [2, 2]


def test_many_threads_get_the_answers_of_one(model: Model, images: ImageSet) -> None:
    """Eight threads share a model; each image has the answer it has alone."""
    arrays = [images.load(index) for index in range(len(images))]
    alone = [model.predict(array) for array in arrays]
    with ThreadPoolExecutor(8) as pool:
        _same(list(pool.map(model.predict, arrays)), alone)
        parts = pool.map(lambda start: list(model.predict_many(arrays[start : start + 8], batch=3)), range(0, 64, 8))
        _same([one for part in parts for one in part], alone)


def test_many_takes_no_more_than_a_batch_ahead(model: Model, images: ImageSet) -> None:
    """Images are taken when their batch is due, so an endless iterable works, and threads end with the iteration."""
    taken = 0

    def endless() -> Iterator[npt.NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield images.load(taken % len(images))

    stream = model.predict_many(endless(), batch=4)
    assert taken == 0
    next(stream)
    assert taken == 4
    stream.close()  # type: ignore[attr-defined]  # a generator, as every iterator of this method
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_nothing_to_classify_gives_nothing(model: Model, images: ImageSet) -> None:
    """No image, no answer; ``logits`` has no shape to give then."""
    assert list(model.predict_many([])) == []
    assert list(model.predict_many(images.subset([]))) == []
    with pytest.raises(ConfigError, match="no image") as error:
        model.logits([])
    assert error.value.hint


def test_a_damaged_file_is_skipped_where_a_list_is_given(model: Model, photo: Path, tmp_path: Path) -> None:
    """Its name is in the list and the others are classified in order; without a list it is an error."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    several: list[str | Path] = [photo, broken, str(photo), tmp_path / "missing.png"]
    skipped: list[str] = []
    found = list(model.predict_many(several, batch=2, skipped=skipped))
    assert [one.source for one in found] == [str(photo)] * 2
    assert skipped == [str(broken), str(tmp_path / "missing.png")]
    with pytest.raises(DataError, match=r"broken\.jpg"):
        list(model.predict_many(several))
    shutil.copy(photo, tmp_path / "whole.png")
    skipped.clear()
    assert len(list(model.predict_many(open_images(tmp_path), skipped=skipped))) == 1
    assert skipped == [str(broken)]


def test_a_batch_of_damaged_files_alone_is_skipped(model: Model, photo: Path, tmp_path: Path) -> None:
    """A batch in which nothing can be read does not end the iteration."""
    skipped: list[str] = []
    files = [*(tmp_path / f"{index}.png" for index in range(4)), photo]
    assert [one.source for one in model.predict_many(files, batch=2, skipped=skipped)] == [str(photo)]
    assert len(skipped) == 4


REFUSED: list[tuple[str, Callable[[Model], Any]]] = [
    ("floats", lambda model: model.predict(np.zeros((8, 8, 3), np.float32))),  # type: ignore[arg-type]
    ("grey", lambda model: model.predict(np.zeros((8, 8), np.uint8))),
    ("four channels", lambda model: model.predict(np.zeros((8, 8, 4), np.uint8))),
    ("channels first", lambda model: model.predict(np.zeros((3, 8, 8), np.uint8))),
    ("a batch", lambda model: model.predict(np.zeros((1, 8, 8, 3), np.uint8))),
    ("no pixels", lambda model: model.predict(np.zeros((0, 8, 3), np.uint8))),
    ("a BGR array of floats", lambda model: model.predict(np.zeros((8, 8, 3)), color="bgr")),  # type: ignore[arg-type]
    ("a number", lambda model: model.predict(7)),  # type: ignore[arg-type]
    ("a number as BGR", lambda model: model.predict(7, color="bgr")),  # type: ignore[arg-type]
    ("a list of rows", lambda model: model.predict([[0, 0, 0]])),  # type: ignore[arg-type]
    ("a Pillow image of floats", lambda model: model.predict(Image.new("F", (8, 8)))),
    ("a Pillow image as BGR", lambda model: model.predict(Image.new("RGB", (8, 8)), color="bgr")),
    ("another colour", lambda model: model.predict(np.zeros((8, 8, 3), np.uint8), color="gbr")),  # type: ignore[arg-type]
    ("top 0", lambda model: model.predict(np.zeros((8, 8, 3), np.uint8), top=0)),
    ("top -1", lambda model: model.predict_many([], top=-1)),
    ("batch 0", lambda model: model.predict_many([], batch=0)),
    ("another colour of many", lambda model: model.predict_many([], color="RGB")),  # type: ignore[arg-type]
    ("one path of many", lambda model: model.predict_many("photos/")),
    ("an image in a list", lambda model: list(model.predict_many([np.zeros((8, 8), np.uint8)], skipped=[]))),
    ("logits of another colour", lambda model: model.logits([], color="")),  # type: ignore[arg-type]
    ("logits of grey", lambda model: model.logits([np.zeros((8, 8), np.uint8)])),
    ("logits of an image set", lambda model: model.logits(object())),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("call", [call for _, call in REFUSED], ids=[name for name, _ in REFUSED])
def test_wrong_input_is_refused_with_a_hint(model: Model, call: Callable[[Model], Any]) -> None:
    """At the call, not at the first image, and with something to do."""
    with pytest.raises(ConfigError) as error:
        call(model)
    assert error.value.hint


def test_a_path_that_is_no_image_is_named(model: Model, tmp_path: Path) -> None:
    """A missing file, a folder, a text."""
    (tmp_path / "text.txt").write_text("text")
    for name in ("missing.jpg", "text.txt", "."):
        with pytest.raises(DataError) as error:
            model.predict(tmp_path / name)
        assert str(tmp_path) in error.value.message


def test_a_closed_model_says_so(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """Everything that would run the network; what was read from the artifact stays."""
    with open_model(tiny_artifacts["fp32"].folder, backend="fake") as model:
        half = model.predict_many([images.load(0)] * 4, batch=2)
        next(half)
        next(half)
    model.close()
    calls: list[Callable[[], Any]] = [
        lambda: model.predict(images.load(0)),
        lambda: model.predict_many([images.load(0)]),
        lambda: model.logits(images.load(0)),
        lambda: model.network,
        lambda: next(half),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="closed") as error:
            call()
        assert error.value.hint
    assert len(model.labels) == 10
    assert model.backend == "fake"


def test_the_model_says_what_it_is(tiny_artifacts: dict[str, Artifact]) -> None:
    """Its artifact, variant and backend, and all of that in its repr."""
    artifact = tiny_artifacts["int8"]
    with open_model(artifact, backend="onnxruntime", variant="reference") as model:
        assert (model.artifact, model.variant, model.backend) == (artifact, "reference", "onnxruntime")
        assert repr(model) == f"<Model resnet8-cifar int8 on onnxruntime, {artifact.folder}>"


def test_the_variants_compute_what_they_say(tiny_artifacts: dict[str, Artifact], images: ImageSet) -> None:
    """The reference of an INT8 artifact is the FP32 graph; native and simulated INT8 differ from it and are close."""
    stack = np.stack([images.load(index) for index in range(8)])
    with open_model(tiny_artifacts["fp32"].folder, backend="onnxruntime") as fp32:
        expected = fp32.logits(stack)
    found = {}
    for variant in ("native", "simulated", "reference"):
        with open_model(str(tiny_artifacts["int8"].folder), backend="onnxruntime", variant=variant) as int8:
            found[variant] = int8.logits(stack)
    np.testing.assert_array_equal(found["reference"], expected)
    for variant in ("native", "simulated"):
        assert 0 < np.abs(found[variant] - expected).max() < 0.5 * np.abs(expected).max()


def test_without_a_path_the_newest_artifact_is_opened(
    tiny_artifacts: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one under ``artifacts``; where there is none, the error says how to make one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgeResnetError, match="no artifact") as error:
        open_model(backend="fake")
    assert "build" in error.value.hint
    shutil.copytree(tiny_artifacts["fp32"].folder, tmp_path / "artifacts" / "tiny")
    with open_model(backend="fake") as model:
        assert model.artifact.folder == Path("artifacts/tiny")


def _classes(one: Classification) -> list[int]:
    return [score.class_index for score in one.top]


def _same(found: list[Classification], expected: list[Classification]) -> None:
    """The same classes in order, and probabilities to within what another batch size rounds."""
    assert [_classes(one) for one in found] == [_classes(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert [score.probability for score in one.top] == pytest.approx([score.probability for score in other.top], rel=1e-4)
