"""calibrate.py: what a table depends on, memory use, and images that are refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from exported import exported, graph, image_batch, small
from onnx import numpy_helper

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.qdq import measured_tensors
from edge_resnet.core.errors import CalibrationError, DataError
from edge_resnet.core.records import QuantRecipe
from edge_resnet.network.export import INPUT
from edge_resnet.quantization.calibrate import CALIBRATION_BATCH, calibrate, collect, table_from

Images = npt.NDArray[np.uint8]
MAX = QuantRecipe(method="max", images=11)
TENSORS = measured_tensors(graph(small()))
#: One bin of 2048, relative to a value in the upper half of the range: what another order of a float sum may move.
ONE_BIN = 2 / 2048


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest network's file."""
    path = tmp_path_factory.mktemp("calibrate") / "model.onnx"
    path.write_bytes(exported(small()))
    return path


def cut(images: Images, size: int) -> Iterator[Images]:
    return (images[start : start + size] for start in range(0, len(images), size))


@pytest.mark.parametrize("size", [1, 2, 4, 11])
def test_the_batch_size_does_not_matter(size: int, model_path: Path) -> None:
    """Eleven images give one table in batches of 1, 2, 4 and 11, the last of them ragged; the digest is the same to the bit."""
    images = image_batch(11, 16)
    recipe = QuantRecipe(images=11)
    whole = calibrate(model_path, TENSORS, [images], recipe)
    found = calibrate(model_path, TENSORS, cut(images, size), recipe)
    assert found.amax == pytest.approx(whole.amax, rel=ONE_BIN)
    assert (found.signed, found.images, found.recipe) == (whole.signed, 11, recipe)
    assert found.images_digest == whole.images_digest


def test_the_order_of_the_images_shows_in_the_digest_alone(model_path: Path) -> None:
    """The same images in reverse have the same ranges and another digest; other images differ in both."""
    images = image_batch(11, 16)
    forward, backward, other = (
        calibrate(model_path, TENSORS, cut(batch, CALIBRATION_BATCH), MAX)
        for batch in (images, images[::-1], image_batch(11, 16, 1))
    )
    assert backward.amax == pytest.approx(forward.amax, rel=1e-5)
    assert backward.signed == forward.signed
    assert other.amax != pytest.approx(forward.amax, rel=1e-5)
    assert len({forward.images_digest, backward.images_digest, other.images_digest}) == 3


def test_the_digests_are_those_of_the_pixels_and_of_the_file(model_path: Path) -> None:
    """images_digest is the sha256 of all pixels in order, model_digest that of the ONNX file."""
    images = image_batch(5, 16)
    table = calibrate(model_path, TENSORS, cut(images, 2), MAX)
    assert table.images_digest == hashlib.sha256(images.tobytes()).hexdigest()
    assert table.model_digest == hashlib.sha256(model_path.read_bytes()).hexdigest()


def test_the_ranges_are_those_of_the_tensors(model_path: Path) -> None:
    """With method max each range is the largest |x| of its tensor, and tensors with negative values are signed."""
    images = image_batch(7, 16)
    table = calibrate(model_path, TENSORS, cut(images, 2), MAX)
    model = onnx.load(model_path)
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in TENSORS)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = dict(zip(TENSORS, session.run(TENSORS, {INPUT: images}), strict=True))
    assert list(table.amax) == TENSORS
    assert table.amax == pytest.approx({name: np.abs(value).max() for name, value in values.items()}, rel=1e-5)
    assert table.signed == tuple(name for name, value in values.items() if value.min() < 0)
    assert "mul" in table.signed
    assert "relu" not in table.signed


def test_tensors_named_twice_are_measured_once(model_path: Path) -> None:
    """A repeated name does not affect the ranges of the names after it."""
    twice = calibrate(model_path, ["mul", "mul", "relu"], [image_batch(3, 16)], MAX)
    once = calibrate(model_path, ["relu", "mul"], [image_batch(3, 16)], MAX)
    assert twice.amax == once.amax


def test_one_pass_serves_every_method(model_path: Path) -> None:
    """Histograms collected once give, for each recipe, the table of a pass with that recipe."""
    images = image_batch(6, 16)
    counted = collect(model_path, TENSORS, cut(images, 2), 6)
    assert counted.images == 6
    for recipe in (MAX, QuantRecipe(percentile=99), QuantRecipe(percentile=60)):
        table = calibrate(model_path, TENSORS, cut(images, 2), recipe)
        assert table_from(counted.histograms, recipe, 6, table.images_digest, table.model_digest) == table


def test_images_that_do_not_lie_in_one_piece_are_read_right(model_path: Path) -> None:
    """Strided views give the same ranges and digests as their copies."""
    images = image_batch(4, 32)[:, ::2, ::-2]
    view = calibrate(model_path, TENSORS, [images], MAX)
    assert view == calibrate(model_path, TENSORS, [np.ascontiguousarray(images)], MAX)


@pytest.mark.parametrize("expected", [11, 500, 3])
def test_progress_never_goes_back_and_ends_complete(expected: int, model_path: Path) -> None:
    """It starts at 0, rises, never exceeds its total, and ends with done == total, also where images were fewer or more."""
    calls: list[tuple[str, int, int]] = []
    recipe = QuantRecipe(images=expected)
    calibrate(model_path, TENSORS, cut(image_batch(11, 16), 2), recipe, progress=lambda *call: calls.append(call))
    done = [done for _, done, _ in calls]
    assert {stage for stage, _, _ in calls} == {"calibrate"}
    assert calls[0][1:] == (0, expected)
    assert calls[-1][1:] == (11, 11)
    assert done == sorted(done)
    assert all(done <= total for _, done, total in calls)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """The peak of 128 more images is less than 15 % above that of 16; their activations are larger than the whole process."""
    spec = small(input_size=64)
    (tmp_path / "model.onnx").write_bytes(exported(spec))
    code = (
        "import json, resource, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from edge_resnet.quantization.calibrate import calibrate\nfrom edge_resnet.core.records import QuantRecipe\n"
        "def peak(count):\n"
        "    rng = np.random.default_rng(0)\n"
        "    batches = (rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8) for _ in range(count // 2))\n"
        "    calibrate(Path(sys.argv[1]), json.loads(sys.argv[2]), batches, QuantRecipe(images=count))\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(peak(16), peak(128))"
    )
    arguments = [str(tmp_path / "model.onnx"), json.dumps(measured_tensors(graph(spec)))]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    few_kib, many_kib = map(int, done.stdout.split())
    assert many_kib < 1.15 * few_kib


def test_no_image_is_refused(model_path: Path) -> None:
    """An empty set raises, and the hint says what images are."""
    with pytest.raises(CalibrationError, match="no image") as caught:
        calibrate(model_path, TENSORS, [], MAX)
    assert "a folder, a CSV, an .npz" in caught.value.hint


@pytest.mark.parametrize(
    "colours",
    [[(0, 0, 0)], [(255, 255, 255)], [(200, 30, 30)], [(0, 0, 0), (255, 255, 255), (10, 200, 90)]],
    ids=["black", "white", "a colour", "a colour per image"],
)
@pytest.mark.parametrize("size", [1, 3])
def test_flat_images_are_refused(colours: list[tuple[int, int, int]], size: int, model_path: Path) -> None:
    """Images of one colour each, grey or not, the same or not, in one batch or several, are no calibration set."""
    images = np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), 16, 16, 3))
    with pytest.raises(CalibrationError, match="flat"):
        calibrate(model_path, TENSORS, cut(images, size), MAX)


def test_one_image_among_flat_ones_is_enough(model_path: Path) -> None:
    """Some flat images occur in real sets and are accepted."""
    images = np.concatenate([np.zeros((4, 16, 16, 3), np.uint8), image_batch(1, 16)])
    assert calibrate(model_path, TENSORS, cut(images, 2), MAX).images == 5


def test_broken_weights_are_noticed(tmp_path: Path) -> None:
    """Activations of a weight that is not finite raise an error and do not hang the pass."""
    model = graph(small())
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "layer1.0.conv1.weight")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = np.inf
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CalibrationError, match="not finite"):
        calibrate(tmp_path / "model.onnx", TENSORS, cut(image_batch(9, 16), 2), MAX)


def test_an_error_of_the_source_passes_through(model_path: Path) -> None:
    """An error of the image reader in mid-pass is passed through unchanged."""

    def breaking() -> Iterator[Images]:
        yield image_batch(2, 16)
        raise DataError("the disk is gone")

    with pytest.raises(DataError, match="the disk is gone"):
        calibrate(model_path, TENSORS, breaking(), MAX)


def test_a_table_survives_its_json(model_path: Path) -> None:
    """Written and read back, the table is equal, so an engine derived from the file is the one derived from memory."""
    from pydantic import TypeAdapter

    from edge_resnet.artifact.folder import write_json

    table = calibrate(model_path, TENSORS, [image_batch(3, 16)], MAX)
    path = model_path.parent / "calibration.json"
    write_json(path, table)
    assert TypeAdapter(CalibrationTable).validate_json(path.read_bytes()) == table
