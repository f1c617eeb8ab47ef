"""Recordings: every frame at its own time, playable after a crash if the container allows it, and nothing replaced."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from children import started
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sinksamples import Seen, predicted, with_image

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Preprocess
from edge_resnet.runtime.fake import FakeBackend
from edge_resnet.streaming.loop import RunOptions, run
from edge_resnet.streaming.sinks import video
from edge_resnet.streaming.sinks.video import VideoSink
from edge_resnet.streaming.sources import open_source

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install opencv-python")

SUFFIXES = (".mp4", ".mkv", ".avi")


def _frames(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames


def _rate(path: Path) -> float:
    capture = cv2.VideoCapture(str(path))
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return rate


def _run_over(uri: str, output: Path) -> None:
    """Classify a file and record it, as fast as that goes."""
    options = RunOptions(Preprocess(resize=32, crop=32), tuple("abcdefghij"))
    with FakeBackend(10) as backend, open_source(uri) as source, VideoSink(output) as sink:
        run(backend, [source], [sink], options)


def _record(path: Path, count: int, *, per_second: float = 30.0) -> None:
    with VideoSink(path) as sink:
        for frame in range(count):
            sink.write(predicted(frame, per_second=per_second), with_image(frame, height=120, width=160))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("count", [1, 29, 75])
def test_every_frame_is_recorded(tmp_path: Path, suffix: str, count: int) -> None:
    """As many frames as were written are read back, of the same size, with the answer in them."""
    path = tmp_path / f"out{suffix}"
    _record(path, count)
    frames = _frames(path)
    assert len(frames) == count
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    plain = with_image(count - 1, height=120, width=160).image
    assert frames[-1].shape == plain.shape
    # Below the box the image is the one that was given, up to the codec; in it, the box's dark ground.
    assert np.abs(frames[-1][60:].astype(int) - plain[60:]).mean() < 6
    assert np.median(frames[-1][2:16, 2:60]) < 60


def _times_ms(path: Path) -> list[int]:
    capture = cv2.VideoCapture(str(path))
    times = []
    while capture.read()[0]:
        times.append(round(capture.get(cv2.CAP_PROP_POS_MSEC)))
    capture.release()
    return times


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("per_second", [0.5, 5.0, 12.5, 29.83, 59.94])
def test_the_rate_is_that_of_the_frames(tmp_path: Path, suffix: str, per_second: float) -> None:
    """Frames captured at a steady rate play at that rate."""
    _record(tmp_path / f"out{suffix}", 40, per_second=per_second)
    assert _rate(tmp_path / f"out{suffix}") == pytest.approx(per_second, rel=0.001)


@pytest.mark.parametrize("per_second", [12.5, 29.83])
def test_a_file_that_is_recorded_again_keeps_its_rate(tmp_path: Path, per_second: float) -> None:
    """However fast a video file is classified, the recording plays at the file's own rate."""
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), per_second, (160, 120))
    for frame in range(40):
        writer.write(with_image(frame, height=120, width=160).image)
    writer.release()
    for suffix in SUFFIXES:
        _run_over(str(tmp_path / "in.avi"), tmp_path / f"out{suffix}")
        assert _rate(tmp_path / f"out{suffix}") == pytest.approx(per_second, rel=0.001), suffix
        assert len(_frames(tmp_path / f"out{suffix}")) == 40


def test_images_are_shown_for_a_second_each(tmp_path: Path) -> None:
    """A folder of images becomes a video of one image per second."""
    for number in range(4):
        Image.fromarray(with_image(number).image).save(tmp_path / f"{number}.png")
    _run_over(str(tmp_path), tmp_path / "out.mkv")
    assert _times_ms(tmp_path / "out.mkv") == [0, 1000, 2000, 3000]


def test_uneven_frames_have_their_own_times(tmp_path: Path) -> None:
    """A camera's frames are shown when they were captured; a gap is shortened to 5 s, and no time goes back."""
    captured_ms = (5_000, 5_040, 5_300, 65_300, 65_290, 65_400)
    with VideoSink(tmp_path / "out.mkv") as sink:
        for number, at_ms in enumerate(captured_ms):
            sink.write(replace(predicted(number), captured_ns=at_ms * 1_000_000), with_image(number))
    assert _times_ms(tmp_path / "out.mkv") == [0, 40, 300, 5_300, 5_301, 5_411]


@pytest.mark.parametrize(("per_second", "height", "width"), [(5, 240, 320), (15, 480, 640)])
def test_a_killed_process_loses_no_frame(tmp_path: Path, per_second: int, height: int, width: int) -> None:
    """Killed with signal 9 a moment after it began, however slowly its frames come, every one of them is in the recording."""
    path = tmp_path / "out.mkv"
    code = (
        "import sys\nfrom pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\nfrom sinksamples import predicted, with_image\n"
        "from edge_resnet.streaming.sinks.video import VideoSink\n"
        "per_second, height, width = map(int, sys.argv[3:])\nsink = VideoSink(Path(sys.argv[1]))\n"
        "for number in range(20):\n"
        "    sink.write(predicted(number, per_second=per_second), with_image(number, height=height, width=width))\n"
        "print('written', flush=True)\nsys.stdin.read()\n"
    )
    numbers = [str(number) for number in (per_second, height, width)]
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent), *numbers]
    with started(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
    assert len(_frames(path)) == 20
    assert _rate(path) == pytest.approx(per_second, rel=0.001)


@settings(max_examples=30)
@given(cut=st.integers(0, 10**6))
def test_a_recording_cut_anywhere_plays_up_to_there(cut: int) -> None:
    """As after a power cut: of a file cut at any byte, every whole frame can be read."""
    with TemporaryDirectory() as folder:
        whole, ends = Path(folder) / "whole.mkv", []
        with VideoSink(whole) as sink:
            for frame in range(5):
                sink.write(predicted(frame), with_image(frame))
                ends.append(whole.stat().st_size)
        content = whole.read_bytes()
        cut = min(cut % (len(content) + 1), len(content))
        part = Path(folder) / "part.mkv"
        part.write_bytes(content[:cut])
        complete = sum(end <= cut for end in ends)
        assert complete <= len(_frames(part)) <= complete + 1  # OpenCV also shows the part of a JPEG


def test_an_mp4_is_not_there_before_it_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning says that it cannot be played before the end; until then its name contains part."""
    path = tmp_path / "out.mp4"
    with caplog.at_level(logging.WARNING), VideoSink(path) as sink:
        for frame in range(40):
            sink.write(predicted(frame), with_image(frame))
        assert [entry.name for entry in tmp_path.iterdir()] == ["out.part.mp4"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]
    assert "cannot be played if the run is killed" in caplog.text


def test_what_a_killed_avi_lacks(tmp_path: Path) -> None:
    """The file before it is closed, which a kill leaves: at most 256 KiB and the index at the end are missing."""
    path, index = tmp_path / "out.avi", 1 << 14
    with VideoSink(path) as sink:
        for frame in range(60):
            sink.write(predicted(frame), with_image(frame, height=240, width=320))
        left = path.stat().st_size
    assert 0 < left < path.stat().st_size <= left + (256 << 10) + index


def test_an_mp4_is_smaller(tmp_path: Path) -> None:
    """Its codec stores what changes from frame to frame, a .mkv every frame as a JPEG."""
    for suffix in (".mp4", ".mkv"):
        with VideoSink(tmp_path / f"out{suffix}") as sink:
            for number in range(40):
                sink.write(predicted(number), with_image(number % 2, height=240, width=320))
    assert (tmp_path / "out.mp4").stat().st_size < (tmp_path / "out.mkv").stat().st_size


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_replaced(tmp_path: Path, suffix: str) -> None:
    """A second recording of the same name gets a number, and the first one is unchanged."""
    path = tmp_path / f"out{suffix}"
    _record(path, 5)
    before = path.read_bytes()
    _record(path, 6)
    _record(path, 7)
    assert path.read_bytes() == before
    counts = {entry.name: len(_frames(entry)) for entry in tmp_path.iterdir()}
    assert counts == {f"out{suffix}": 5, f"out.2{suffix}": 6, f"out.3{suffix}": 7}


def test_a_file_per_source(tmp_path: Path) -> None:
    """Each source has its own file, named after it; a seventeenth is refused, and the sixteen continue."""
    with VideoSink(tmp_path / "out.avi", per_source=True) as sink:
        for frame in range(3):
            for source in ("camera:0", "rtsp://host:554/cam/1"):
                sink.write(predicted(frame, Seen(source=source)), with_image(frame))
        for number in range(14):
            sink.write(predicted(0, Seen(source=f"s{number:02}")), with_image())
        with pytest.raises(ConfigError, match="at most 16"):
            sink.write(predicted(0, Seen(source="one more")), with_image())
        sink.write(predicted(3), with_image())
    counts = {entry.name: len(_frames(entry)) for entry in tmp_path.iterdir()}
    assert counts["out-camera-0.avi"] == 4
    assert counts["out-rtsp-host-554-cam-1.avi"] == 3
    assert len(counts) == 16


def test_frames_of_another_size_fit_in(tmp_path: Path) -> None:
    """Taller, wider and smaller frames keep their aspect ratio and get black borders; odd sizes are recorded, too."""
    path = tmp_path / "out.avi"
    sizes = [(121, 161), (240, 160), (60, 320), (10, 10), (121, 161)]
    with VideoSink(path) as sink:
        for number, (height, width) in enumerate(sizes):
            sink.write(predicted(number), with_image(99, height=height, width=width))
    frames = _frames(path)
    assert [frame.shape for frame in frames] == [(120, 160, 3)] * 5
    assert frames[1][:, :35].max() < 20
    assert frames[1][60:, 45:115].mean() > 60
    assert frames[2][:40].max() < 20
    assert frames[2][50:70].mean() > 40


def test_a_full_disk_is_reported_and_recovered_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are refused while too little is free; later ones are recorded, and the file is complete."""
    path = tmp_path / "out.mkv"
    real = shutil.disk_usage(tmp_path)
    with VideoSink(path) as sink:
        for frame in range(60):
            if frame in (20, 40):
                free = (10 << 20) if frame == 20 else real.free
                monkeypatch.setattr(video.shutil, "disk_usage", lambda _, free=free: real._replace(free=free))
            if 20 <= frame < 40:
                with pytest.raises(ConfigError, match="10 MiB are free, and 32 MiB are kept free"):
                    sink.write(predicted(frame), with_image(frame))
            else:
                sink.write(predicted(frame), with_image(frame))
    assert len(_frames(path)) == 40


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_recording_that_is_removed(tmp_path: Path, suffix: str) -> None:
    """Frames do not go into a deleted file: a new recording starts."""
    path = tmp_path / f"out{suffix}"
    with VideoSink(path) as sink:
        for frame in range(31):
            sink.write(predicted(frame), with_image(frame))
        (there,) = tmp_path.iterdir()
        there.unlink()
        for frame in range(31, 38):
            sink.write(predicted(frame), with_image(frame))
    assert len(_frames(path)) == 7


def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    """An unknown suffix and a folder that does not exist are refused at once."""
    for name in ("out.webp", "no/out.mkv"):
        with pytest.raises(ConfigError):
            VideoSink(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_closing_twice(tmp_path: Path) -> None:
    """close may be called more than once; without a frame there is no file."""
    sink = VideoSink(tmp_path / "out.mkv")
    sink.close()
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_without_opencv(tmp_path: Path) -> None:
    """A .mkv is recorded; each sink that needs OpenCV names the command that installs it."""
    code = (
        "import sys\nfrom pathlib import Path\nsys.modules['cv2'] = None\n"
        "from edge_resnet.core.errors import MissingDependencyError\n"
        "from edge_resnet.streaming.sinks.video import VideoSink\nfrom edge_resnet.streaming.sinks.window import WindowSink\n"
        "VideoSink(Path(sys.argv[1]).with_suffix('.mkv')).close()\n"
        "for make in (lambda: VideoSink(Path(sys.argv[1])), lambda: WindowSink(print)):\n"
        "    try:\n        make()\n"
        "    except MissingDependencyError as error:\n        assert \"pip install 'edge-resnet[camera]'\" in error.hint\n"
        "    else:\n        raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.mp4")], check=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path, suffix: str) -> None:
    """Its name counts as taken, and no frame is lost."""
    path = tmp_path / f"clip{suffix}"
    path.symlink_to(tmp_path / "unmounted" / path.name)
    _record(path, 5)
    assert path.is_symlink()
    assert len(_frames(tmp_path / f"clip.2{suffix}")) == 5


@pytest.mark.parametrize("folder", [True, False])
def test_the_images_of_a_folder_are_one_source(tmp_path: Path, folder: bool) -> None:
    """Beside another source, too, images share a file, each for a second, whether their folder or each of them is the source."""
    with VideoSink(tmp_path / "out.mkv", per_source=True) as sink:
        for number in range(20):
            prediction = predicted(0, Seen(source=f"set/{number}.png"))
            sink.write(prediction, replace(with_image(), position_ns=folder * number * 10**9))
    (path,) = tmp_path.iterdir()
    assert path.name == "out-set.mkv"
    assert len(_frames(path)) == 20
    assert _rate(path) == pytest.approx(1)
