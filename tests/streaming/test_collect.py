"""collect.py: frames become images, each once, whole, different, from all of a file, and a folder is continued."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.errors import ConfigError, DataError, SourceError
from edge_resnet.images.imageset import open_images
from edge_resnet.images.preprocess import decode_image
from edge_resnet.streaming.collect import SnapshotOptions, SnapshotResult, collect_snapshots
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources import open_source

_Pixels = npt.NDArray[np.uint8]


def _scene(index: int, size: tuple[int, int] = (48, 64)) -> _Pixels:
    """A smooth image (H, W, 3) unlike that of any other index."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / size[1]
    waves = rng.uniform(0.3, 2.5, (3, 2, 1, 1))
    phase = waves[:, 0] * x + waves[:, 1] * y + rng.uniform(0, 1, (3, 1, 1))
    return np.ascontiguousarray((127.5 + 127.5 * np.sin(2 * np.pi * phase)).astype(np.uint8).transpose(1, 2, 0))


def _flat(level: int) -> _Pixels:
    return np.full((48, 64, 3), level, np.uint8)


class Camera:
    """A live source with its own clock: frame i is captured i / ``rate`` seconds after the first."""

    live = True
    dropped = 0

    def __init__(self, images: Iterable[_Pixels], rate: float = 1.0, error: BaseException | None = None) -> None:
        self._images, self._rate, self._error = images, rate, error
        self.read = 0

    def __iter__(self) -> Iterator[Frame]:
        started = time.monotonic_ns()
        for index, image in enumerate(self._images):
            self.read += 1
            yield Frame(image, index, started + round(index / self._rate * 1e9), "camera:0")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class File(Camera):
    """A source that ends and waits for its caller."""

    live = False


def _images(folder: Path) -> list[Path]:
    """The names in the folder, hidden files included, sorted."""
    return sorted(folder.iterdir())


def _collect(source: Camera, folder: Path, count: int = 8, every_s: float = 1.0, min_change: float = 2.0) -> SnapshotResult:
    return collect_snapshots(source, folder, SnapshotOptions(count, every_s, min_change))


def test_frames_become_images_of_full_size_and_right_colour(tmp_path: Path) -> None:
    """A frame is read back upright, in its size, in RGB, up to the loss of JPEG."""
    result = _collect(File([_scene(1, (120, 160))[..., ::-1]]), tmp_path / "set")
    (path,) = _images(tmp_path / "set")
    assert (result.saved, result.total, result.interrupted) == (1, 1, False)
    written = decode_image(path)
    assert written.shape == (120, 160, 3)
    difference = np.abs(written.astype(int) - _scene(1, (120, 160)))
    assert difference.mean() < 1.5
    assert difference.max() < 12


def test_names_tell_the_order_and_the_time(tmp_path: Path) -> None:
    """Names sort in the order of capture and contain its time, in UTC."""
    before = datetime.now(timezone.utc)
    with open_source("synthetic://?frames=40") as source:
        collect_snapshots(source, tmp_path, SnapshotOptions(count=5))
    names = [path.name for path in _images(tmp_path)]
    stamps = [datetime.strptime(f"{name[7:-5]}000+0000", "%Y%m%dT%H%M%S.%f%z") for name in names]
    assert [int(name[:6]) for name in names] == sorted({int(name[:6]) for name in names})
    assert stamps == sorted(stamps)
    assert abs((stamps[0] - before).total_seconds()) < 30
    assert all(name.endswith("Z.jpg") for name in names)


def test_a_camera_is_left_when_there_are_enough(tmp_path: Path) -> None:
    """A live source is not read further than needed."""
    camera = Camera(map(_scene, range(1000)))
    result = _collect(camera, tmp_path, count=6)
    assert (result.saved, result.total) == (6, 6)
    assert camera.read <= 8


@pytest.mark.parametrize("every_s", [0.0, 0.5, 1.0, 3.0])
def test_images_of_a_camera_are_apart(tmp_path: Path, every_s: float) -> None:
    """The first second is skipped while the exposure settles; then one frame in ``every_s`` seconds is taken."""
    rate, count = 10.0, 5
    camera = Camera((_scene(index) for index in range(1000)), rate)
    _collect(camera, tmp_path, count, every_s)
    step = max(1, round(every_s * rate))
    assert camera.read == 1 + rate + step * (count - 1)


def test_only_changes_are_kept(tmp_path: Path) -> None:
    """Frames similar to a saved image, also an older one, are skipped, with and without noise."""
    rng = np.random.default_rng(0)
    scenes = [_scene(1, (240, 320)), _scene(2, (240, 320))]
    noisy = [np.clip(scenes[i % 2] + rng.normal(0, 8, (240, 320, 3)), 0, 255).astype(np.uint8) for i in range(12)]
    result = _collect(File(noisy), tmp_path)
    assert (result.saved, result.skipped_similar) == (2, 10)


def test_without_a_minimum_change_only_repetitions_are_skipped(tmp_path: Path) -> None:
    """min_change 0 saves whatever differs, and the frame of a frozen camera once."""
    moving = [np.roll(_scene(1), index, axis=1) for index in range(4)]
    result = _collect(File([*moving, moving[3], moving[3]]), tmp_path, min_change=0)
    assert (result.saved, result.skipped_similar) == (4, 2)


@given(changes=st.lists(st.integers(0, 3), min_size=1, max_size=12), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_no_two_images_are_alike(changes: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever repeats in a file, the folder has each scene at most once, and every scene if there is room."""
    folder = tmp_path_factory.mktemp("set")
    options = SnapshotOptions(count=6, seed=seed)
    result = collect_snapshots(File(_scene(change) for change in changes), folder, options)
    assert result.saved == result.total == len(_images(folder)) == len(set(changes))
    assert result.saved + result.skipped_similar == len(changes)


@pytest.mark.parametrize(
    ("image", "counter"),
    [
        (_flat(0), "skipped_dark"),
        (_flat(15), "skipped_dark"),
        (_flat(255), "skipped_bright"),
        (np.maximum(_scene(3), 245), "skipped_bright"),
        (_flat(128), "skipped_flat"),
        (_flat(1) * np.array([200, 60, 0], np.uint8), "skipped_flat"),
    ],
    ids=["black", "video black", "white", "overexposed", "grey", "a blue screen"],
)
def test_frames_that_show_nothing_are_not_kept(tmp_path: Path, image: _Pixels, counter: str) -> None:
    """Dark, overexposed and one-coloured frames are counted by kind, with and without noise."""
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
    result = _collect(File([image, noisy, _scene(1)]), tmp_path)
    assert (result.saved, getattr(result, counter)) == (1, 2)


def test_dim_and_light_scenes_are_kept(tmp_path: Path) -> None:
    """A lamp at night and a sheet of paper with a few words are valid scenes."""
    night = _flat(4)
    night[4:10, 10:16] = 180
    paper = _flat(252)
    paper[20:28, 8:50] = 30
    assert _collect(File([night, paper]), tmp_path).saved == 2


def test_a_draw_from_a_file_comes_from_all_of_it(tmp_path: Path) -> None:
    """Of 100 frames 20 are drawn: from each quarter about as many, not the first 20."""
    frames = [_scene(index, (24, 32)) for index in range(100)]
    quarters = np.zeros(4, int)
    for seed in range(10):
        collect_snapshots(File(frames), tmp_path / str(seed), SnapshotOptions(count=20, min_change=0.5, seed=seed))
        for path in _images(tmp_path / str(seed)):
            differences = np.abs(np.stack(frames).astype(int) - decode_image(path)).sum(axis=(1, 2, 3))
            quarters[differences.argmin() // 25] += 1
    # Of 200 draws 50 are expected from a quarter: five standard deviations are 27.
    assert quarters.sum() == 200
    assert np.abs(quarters - 50).max() < 27


def test_the_seed_decides_the_draw(tmp_path: Path) -> None:
    """The same seed draws the same frames, another seed draws others."""
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        frames = File(_scene(index, (24, 32)) for index in range(60))
        collect_snapshots(frames, tmp_path / name, SnapshotOptions(count=6, seed=seed))
        contents.append([path.read_bytes() for path in _images(tmp_path / name)])
    assert contents[0] == contents[1] != contents[2]


def test_an_endless_source_is_limited(tmp_path: Path) -> None:
    """Of an endless source that is not live, 200 frames per wanted image are read."""
    with open_source("synthetic://?frames=0&width=64&height=48") as source:
        result = collect_snapshots(source, tmp_path, SnapshotOptions(count=3))
    assert result.total == 3
    assert result.saved + result.skipped_similar <= 600


def test_a_folder_is_continued(tmp_path: Path) -> None:
    """A second run fills up to the count, keeps every earlier image and its number, and saves no scene twice."""
    first = _collect(Camera(map(_scene, range(9))), tmp_path, count=3)
    earlier = {path.name: path.read_bytes() for path in _images(tmp_path)}
    second = _collect(File(map(_scene, range(9))), tmp_path, count=7)
    assert (first.total, second.saved, second.total) == (3, 4, 7)
    assert second.skipped_similar >= 3
    assert {path.name: path.read_bytes() for path in _images(tmp_path) if path.name in earlier} == earlier
    numbers = [int(path.name[:6]) for path in _images(tmp_path)]
    assert numbers[:3] == [1, 2, 3]
    assert len(set(numbers)) == 7


def test_a_full_folder_is_left_alone(tmp_path: Path) -> None:
    """If there are enough images, the source is not read."""
    _collect(Camera(map(_scene, range(9))), tmp_path, count=3)
    camera = Camera(map(_scene, range(9)))
    result = _collect(camera, tmp_path, count=2)
    assert (result.saved, result.total, camera.read) == (0, 3, 0)


def test_other_files_are_left_and_not_counted(tmp_path: Path) -> None:
    """The user's own images and notes stay, and a damaged image of an earlier run is skipped with a warning."""
    Image.fromarray(_scene(1)).save(tmp_path / "mine.png")
    (tmp_path / "notes.txt").write_text("the barn, in the morning")
    (tmp_path / "000004_20261103T101112.123Z.jpg").write_bytes(b"\xff\xd8 torn")
    result = _collect(Camera(map(_scene, range(9))), tmp_path, count=2)
    assert result.total == 2
    assert {"mine.png", "notes.txt", "000004_20261103T101112.123Z.jpg"} < {path.name for path in tmp_path.iterdir()}
    assert {path.name[:6] for path in tmp_path.glob("*Z.jpg")} == {"000004", "000005", "000006"}


def test_the_set_can_be_calibrated_on(tmp_path: Path) -> None:
    """The folder opens as an image set with every image in it."""
    _collect(Camera(map(_scene, range(9))), tmp_path / "set", count=4)
    images = open_images(tmp_path / "set")
    assert len(images) == 4
    assert images.labels is None


@pytest.mark.parametrize("at", [0, 1, 3])
def test_ctrl_c_keeps_what_is_there(tmp_path: Path, at: int) -> None:
    """An interruption ends the collection, is reported, and leaves whole images."""
    result = _collect(Camera(map(_scene, range(at + 1)), error=KeyboardInterrupt()), tmp_path / "set")
    assert (result.interrupted, result.saved) == (True, at)
    assert [decode_image(path).shape for path in (tmp_path / "set").glob("*")] == [(48, 64, 3)] * at


def test_an_unplugged_camera_names_what_is_kept(tmp_path: Path) -> None:
    """The source's error is raised, with the number of images and their folder."""
    camera = Camera(map(_scene, range(4)), error=SourceError("camera:0 stopped after 4 frames", hint="is it still plugged in?"))
    with pytest.raises(SourceError, match=rf"stopped after 4 frames; 3 images are in {tmp_path}") as caught:
        _collect(camera, tmp_path)
    assert caught.value.hint == "is it still plugged in?"
    assert len(_images(tmp_path)) == 3


def test_a_full_disk_is_one_line_and_leaves_no_half_image(tmp_path: Path) -> None:
    """On a full disk earlier images stay, no incomplete file is left, and the next run continues."""
    _collect(Camera(map(_scene, range(4))), tmp_path, count=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write .*000003_.*: File too large") as caught:
            _collect(File(map(_scene, range(9))), tmp_path, count=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "2 images there are kept" in caught.value.hint
    assert len(_images(tmp_path)) == 2
    assert _collect(File(map(_scene, range(9))), tmp_path, count=9).total == 9


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """An output that is a file is refused before a frame is read."""
    (tmp_path / "set").write_text("x")
    camera = Camera(map(_scene, range(9)))
    with pytest.raises(DataError, match="cannot be used") as caught:
        _collect(camera, tmp_path / "set")
    assert (camera.read, bool(caught.value.hint)) == (0, True)


def test_class_folders_are_not_written_beside(tmp_path: Path) -> None:
    """In a folder of class folders the images would be overlooked: it is refused, and a class folder is suggested."""
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataError, match=r"contains folders \(cats\)") as caught:
        _collect(File(map(_scene, range(3))), tmp_path)
    assert str(tmp_path / "cats") in caught.value.hint
    assert _collect(File(map(_scene, range(3))), tmp_path / "cats").saved == 3


def test_a_camera_that_shows_nothing_new_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Thirty frames without a new image are one warning with a hint, and thirty more another."""
    with caplog.at_level(logging.WARNING):
        _collect(Camera([_scene(1)] * 64), tmp_path / "still")
        _collect(Camera([_flat(0)] * 34), tmp_path / "dark")
    texts = [record.getMessage() for record in caplog.records]
    assert [("move the camera" in text, "lens" in text) for text in texts] == [(True, False), (True, False), (False, True)]


def test_progress_counts_images(tmp_path: Path) -> None:
    """Progress starts at the images there, and rises to the count."""
    calls: list[tuple[str, int, int]] = []
    _collect(Camera(map(_scene, range(9))), tmp_path, count=2)
    options = SnapshotOptions(count=4)
    collect_snapshots(
        Camera(map(_scene, range(9))), tmp_path, options, progress=lambda stage, done, total: calls.append((stage, done, total))
    )
    assert calls[0] == ("collect", 2, 4)
    assert calls[-1] == ("collect", 4, 4)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


@pytest.mark.parametrize(
    "words",
    [
        {"count": 0},
        {"every_s": -1.0},
        {"every_s": float("nan")},
        {"every_s": float("inf")},
        {"min_change": -1.0},
        {"min_change": 256.0},
        {"min_change": float("nan")},
        {"seed": -1},
    ],
)
def test_invalid_options_are_refused(words: dict[str, float]) -> None:
    """No images, a negative pause, an impossible change: one line with a hint."""
    with pytest.raises(ConfigError) as caught:
        SnapshotOptions(**words)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_video_and_a_folder_of_images(tmp_path: Path) -> None:
    """Real sources: every scene of a video and of a folder comes out once."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for index in range(30):
        writer.write(_scene(index // 10))
    writer.release()
    (tmp_path / "shots").mkdir()
    for index in range(4):
        Image.fromarray(_scene(index)).save(tmp_path / "shots" / f"{index}.png")
    for uri, scenes, frames in (("clip.avi", 3, 30), ("shots", 4, 4)):
        with open_source(str(tmp_path / uri)) as source:
            result = collect_snapshots(source, tmp_path / f"{uri}-set", SnapshotOptions(count=10))
        assert (result.saved, result.saved + result.skipped_similar) == (scenes, frames)


def test_collecting_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    """A device collects with the base install."""
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'onnx', 'onnxruntime', 'cv2'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from edge_resnet.streaming.collect import SnapshotOptions, collect_snapshots\n"
        "from edge_resnet.streaming.sources import open_source\n"
        f"print(collect_snapshots(open_source('synthetic://?frames=50'), Path({str(tmp_path)!r}), SnapshotOptions(4)).saved)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "4\n", result.stderr


@pytest.mark.parametrize(
    ("clip", "frames", "least"), [("bird.mkv", 63, 8), pytest.param("bottle-detection.mp4", 1189, 100, marks=pytest.mark.slow)]
)
def test_real_videos_give_real_sets(real_data: Path, tmp_path: Path, clip: str, frames: int, least: int) -> None:
    """Much of a real clip is near-duplicates; the saved frames have full size and come from its whole length."""
    with open_source(str(real_data / "video" / clip)) as source:
        result = collect_snapshots(source, tmp_path, SnapshotOptions(count=500))
    assert result.saved + result.skipped_similar == frames
    assert least <= result.saved <= frames // 3
    assert {decode_image(path).shape[2] for path in _images(tmp_path)[:3]} == {3}
