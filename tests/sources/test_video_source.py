"""Videos through OpenCV: every frame, in order, and files that are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_resnet.errors import SourceError
from edge_resnet.sources.video import VideoSource

FRAMES = 40


def _write(path: Path, frames: int = FRAMES, size: tuple[int, int] = (64, 48)) -> Path:
    """A clip whose frame i has brightness 6 i."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, size)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 6 * index, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_every_frame_in_order(tmp_path: Path, suffix: str) -> None:
    """As many frames as were written, each with its own brightness, none skipped by a slow reader."""
    with VideoSource(str(_write(tmp_path / f"clip{suffix}"))) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    brightness = [float(frame.image.mean()) for frame in frames]
    np.testing.assert_allclose(brightness, 6 * np.arange(FRAMES), atol=4)
    stamps = [frame.captured_ns for frame in frames]
    assert stamps == sorted(stamps)
    assert not source.live


def test_names_with_spaces_and_other_letters(tmp_path: Path) -> None:
    """The name reaches OpenCV as it is, and every frame carries it."""
    path = _write(tmp_path / "größer clip.avi", frames=3)
    with VideoSource(str(path)) as source:
        assert {frame.source for frame in source} == {str(path)}


def test_any_file_can_be_called_a_video(tmp_path: Path) -> None:
    """video://PATH opens a file whose name does not tell."""
    path = _write(tmp_path / "clip.avi", frames=3).rename(tmp_path / "clip.bin")
    with VideoSource(f"video://{path}") as source:
        assert len(list(source)) == 3


@pytest.mark.parametrize("content", [b"", b"this is text", bytes(5000)])
def test_files_that_are_no_videos(tmp_path: Path, content: bytes) -> None:
    """Empty, text, zeros: one line, and nothing of FFmpeg's own on stderr."""
    (tmp_path / "x.mp4").write_bytes(content)
    code = (
        "from edge_resnet.errors import SourceError; from edge_resnet.sources.video import VideoSource\n"
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


def test_a_missing_video(tmp_path: Path) -> None:
    """It is named."""
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
