"""Videos through OpenCV: every frame, in order, and files that are not videos."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources.video import VideoSource, _next

FRAMES = 40


def _write(path: Path, frames: int = FRAMES, size: tuple[int, int] = (64, 48)) -> Path:
    """A clip whose frame i has the brightness 6 i."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, size)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 6 * index % 256, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_every_frame_in_order(tmp_path: Path, suffix: str) -> None:
    """As many frames as were written, each with its own brightness, none skipped for a slow caller."""
    with VideoSource(str(_write(tmp_path / f"clip{suffix}"))) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    brightness = [float(frame.image.mean()) for frame in frames]
    np.testing.assert_allclose(brightness, 6 * np.arange(FRAMES), atol=4)
    stamps = [frame.captured_ns for frame in frames]
    assert stamps == sorted(stamps)
    assert not source.live


def test_names_with_spaces_and_other_letters(tmp_path: Path) -> None:
    """The name reaches OpenCV unchanged, and every frame carries it."""
    path = _write(tmp_path / "größer clip.avi", frames=3)
    with VideoSource(str(path)) as source:
        assert {frame.source for frame in source} == {str(path)}


def test_any_file_can_be_called_a_video(tmp_path: Path) -> None:
    """video://PATH opens a file without the suffix of a video."""
    path = _write(tmp_path / "clip.avi", frames=3).rename(tmp_path / "clip.bin")
    with VideoSource(f"video://{path}") as source:
        assert len(list(source)) == 3


def test_an_empty_file(tmp_path: Path) -> None:
    """The error says that a recording of 0 bytes is empty."""
    (tmp_path / "x.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match="is empty") as caught:
        VideoSource(str(tmp_path / "x.mp4"))
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"this is text", bytes(5000)])
def test_files_that_are_no_videos(tmp_path: Path, content: bytes) -> None:
    """Empty, text, zeros: one line, and no messages of FFmpeg on stderr."""
    (tmp_path / "x.mp4").write_bytes(content)
    code = (
        "from edge_resnet.core.errors import SourceError; from edge_resnet.streaming.sources.video import VideoSource\n"
        f"try:\n    list(VideoSource({str(tmp_path / 'x.mp4')!r}))\n"
        "except SourceError as error:\n    print(error.message)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "x.mp4" in result.stdout
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_cut_in_half(tmp_path: Path, suffix: str) -> None:
    """Its first frames or an error, never a hang, and fewer frames than were written."""
    path = _write(tmp_path / f"clip{suffix}", frames=FRAMES, size=(320, 240))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    count = 0
    try:
        with VideoSource(str(path)) as source:
            for frame in source:
                count += frame.image.shape == (240, 320, 3)
    except SourceError as error:
        assert error.hint  # noqa: PT017 - either outcome is right, each with its own demand
    assert count < FRAMES


def test_how_much_of_a_cut_video_there_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every whole frame is delivered, and a warning says how many of how many."""
    path = _write(tmp_path / "clip.avi", frames=FRAMES, size=(320, 240))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoSource(str(path)) as source, caplog.at_level(logging.WARNING, "edge_resnet"):
        frames = list(source)
    np.testing.assert_allclose([frame.image.mean() for frame in frames], 6 * np.arange(len(frames)), atol=4)
    assert FRAMES // 3 < len(frames) < FRAMES
    assert f"ended after {len(frames)} of about {FRAMES} frames" in caplog.text


def test_a_video_by_its_own_clock(tmp_path: Path) -> None:
    """In real time, frames of a clip at 25 per second are 40 ms apart, in their times and in arriving, and none is missing."""
    with VideoSource(str(_write(tmp_path / "clip.avi", frames=12)), realtime=True) as source:
        arrived, stamps = [], []
        for frame in source:
            arrived.append(time.monotonic_ns())
            stamps.append(frame.captured_ns)
    assert source.live
    assert len(stamps) == 12
    np.testing.assert_allclose(np.diff(stamps) / 1e6, 40, atol=1.5)
    assert all(there >= due for there, due in zip(arrived, stamps, strict=True))
    assert 0.4 < (arrived[-1] - arrived[0]) / 1e9 < 2


@pytest.mark.alone
def test_a_reader_slower_than_the_clock(tmp_path: Path) -> None:
    """Late frames come at once, none is skipped, and their times show their age."""
    with VideoSource(str(_write(tmp_path / "clip.avi", frames=12)), realtime=True) as source:
        frames = iter(source)
        next(frames)
        time.sleep(0.6)
        started = time.monotonic_ns()
        rest = list(frames)
        assert time.monotonic_ns() - started < 0.3e9
    assert [frame.index for frame in rest] == list(range(1, 12))
    assert started - rest[0].captured_ns > 0.4e9


def test_timestamps_that_make_no_sense() -> None:
    """Timestamps that repeat, go back or jump by hours are replaced by the frame rate's."""
    assert _next(1.0, 1.04, 0.04) == 1.04
    for stamp in (1.0, 0.0, -3.0, 4000.0, float("nan")):
        assert _next(1.0, stamp, 0.04) == 1.04


@pytest.mark.parametrize("realtime", [False, True])
def test_closing_from_another_thread(tmp_path: Path, realtime: bool) -> None:
    """The iteration ends soon, without an error, also while it waits for a frame or reads."""
    source = VideoSource(str(_write(tmp_path / "clip.avi", frames=400, size=(640, 480))), realtime=realtime)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(frame.index for frame in source))
    reader.start()
    time.sleep(0.05)
    source.close()
    reader.join(2)
    assert not reader.is_alive()
    assert seen == list(range(len(seen)))
    assert len(seen) < 400


def test_a_missing_video(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(SourceError, match=r"nowhere\.mp4 does not exist"):
        VideoSource(str(tmp_path / "nowhere.mp4"))


def test_closing_ends_the_frames(tmp_path: Path) -> None:
    """close may be called in the middle, and twice; then no more frames come."""
    source = VideoSource(str(_write(tmp_path / "clip.avi")))
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


def test_a_real_clip(real_data: Path) -> None:
    """All 63 frames of a clip in another container, 640 x 480."""
    with VideoSource(str(real_data / "video" / "bird.mkv")) as source:
        shapes = [frame.image.shape for frame in source]
    assert shapes == [(480, 640, 3)] * 63
