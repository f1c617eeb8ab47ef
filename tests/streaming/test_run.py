"""The online pipeline: every frame is predicted once, timed, and the run ends cleanly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import SourceError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.preprocess import preprocess_bgr
from edge_resnet.runtime.backend import Logits
from edge_resnet.runtime.fake import FakeBackend
from edge_resnet.streaming.filereader import FileReader
from edge_resnet.streaming.loop import RunOptions, run
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sources.synthetic import SyntheticSource

OPTIONS = RunOptions(Preprocess(resize=32, crop=32), tuple("abcdefghij"))


class Collector:
    """A sink that keeps what it gets, and whether it was closed."""

    name = "collector"
    wants_frames = True

    def __init__(self, fail_at: int = -1, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.predictions: list[Prediction] = []
        self.closed = False
        self._fail_at, self._error = fail_at, error

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Keep it, or fail."""
        if len(self.predictions) == self._fail_at:
            raise self._error
        self.predictions.append(prediction)

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Unplugged(SyntheticSource):
    """A source that fails after three frames."""

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            if frame.index == 3:
                raise SourceError("camera:0 stopped after 3 frames", hint="is it still plugged in?")
            yield frame


def _source(frames: int) -> SyntheticSource:
    return SyntheticSource(f"synthetic://?frames={frames}&width=64&height=48")


def test_every_frame_is_predicted_once_and_in_order() -> None:
    """Frames of two sources come one source after another, each in every sink."""
    sinks = [Collector(), Collector()]
    with FakeBackend(10) as backend:
        summary = run(backend, [_source(5), _source(3)], sinks, OPTIONS)
    assert [p.frame for p in sinks[0].predictions] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert sinks[0].predictions == sinks[1].predictions
    assert (summary.frames, summary.dropped, summary.interrupted) == (8, 0, False)
    assert sum(summary.classes.values()) == 8
    assert summary.latency.count == 8


def test_times_are_consistent() -> None:
    """Stages are positive, their sum is within the frame's age, and all frames are within the run."""
    sink = Collector()
    with FakeBackend(10) as backend:
        summary = run(backend, [_source(20)], [sink], OPTIONS)
    for prediction in sink.predictions:
        assert set(prediction.stages_ms) == {"preprocess", "inference", "postprocess"}
        assert min(prediction.stages_ms.values()) > 0
        assert sum(prediction.stages_ms.values()) <= prediction.age_ms + 0.01
    assert summary.latency.mean_ms * summary.frames / 1e3 <= 2 * summary.seconds, "one runs while the next is prepared"
    assert summary.frames_per_s == pytest.approx(summary.frames / summary.seconds)


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (5, 5), (7, 7), (100, 8)])
def test_the_limit_counts_over_all_sources(limit: int, expected: int) -> None:
    """`frames` counts the frames of all sources."""
    options = RunOptions(OPTIONS.preprocess, OPTIONS.labels, frames=limit)
    with FakeBackend(10) as backend:
        assert run(backend, [_source(5), _source(3)], [], options).frames == expected


@pytest.mark.parametrize("top", [1, 3, 50])
def test_as_many_answers_as_asked_for(top: int) -> None:
    """But no more than there are classes."""
    sink = Collector()
    with FakeBackend(10) as backend:
        run(backend, [_source(1)], [sink], RunOptions(OPTIONS.preprocess, OPTIONS.labels, top=top))
    assert len(sink.predictions[0].top) == min(top, 10)


def test_a_reader_that_goes_away_is_an_end() -> None:
    """The run ends with a summary so far, and the sink is not called again."""
    sink = Collector(fail_at=4, error=BrokenPipeError)
    with FakeBackend(10) as backend:
        summary = run(backend, [_source(0)], [sink], OPTIONS)
    assert summary.interrupted
    assert len(sink.predictions) == 4
    assert summary.frames >= 5


def test_ctrl_c_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """At any point of the loop: batches in flight are completed, and the summary says interrupted."""
    sink = Collector()
    turns = iter(range(40))

    def interrupt(self: object) -> None:
        if next(turns) == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr("edge_resnet.streaming.loop._Loop._tend", interrupt)
    with FakeBackend(10) as backend:
        summary = run(backend, [_source(0)], [sink], OPTIONS)
    assert summary.interrupted
    assert summary.frames == len(sink.predictions) == summary.read - summary.dropped > 0


def test_a_source_that_fails_is_an_error() -> None:
    """Earlier predictions stay with the sinks, which the caller closes."""
    with pytest.raises(SourceError, match="stopped after 3 frames"), Collector() as sink, FakeBackend(10) as backend:
        run(backend, [Unplugged("synthetic://?frames=9&width=16&height=16")], [sink], OPTIONS)
    assert sink.closed
    assert len(sink.predictions) == 3


def test_the_same_frames_get_the_same_answers() -> None:
    """Two runs over a seeded source give the same predictions."""
    answers = []
    for _ in range(2):
        sink = Collector()
        with FakeBackend(10) as backend:
            run(backend, [_source(40)], [sink], OPTIONS)
        answers.append([prediction.top for prediction in sink.predictions])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.alone
def test_a_signal_ends_the_command_cleanly(tiny_artifacts: dict[str, Artifact], tmp_path: Path, number: int) -> None:
    """Within two seconds of the signal: exit code 0, every line whole, a summary that says interrupted."""
    out = tmp_path / "out.jsonl"
    command = [
        *(sys.executable, "-m", "edge_resnet", "run", str(tiny_artifacts["int8"].folder), "--headless"),
        *("--source", "synthetic://?frames=0", "--jsonl", str(out)),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (out.exists() and out.stat().st_size > 5000):
        time.sleep(0.02)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - sent < 2
    assert process.returncode == 0, err
    assert "(interrupted)" in err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(len(rows)))


def test_a_reader_that_goes_away(tiny_artifacts: dict[str, Artifact]) -> None:
    """`run --jsonl - | head -1` prints one line and no message of Python's."""
    command = (
        f"set -o pipefail; {sys.executable} -m edge_resnet run {tiny_artifacts['int8'].folder} "
        "--source 'synthetic://?frames=2000' --jsonl - | head -1"
    )
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert len(result.stdout.splitlines()) == 1
    assert json.loads(result.stdout)["frame"] == 0
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr
    assert result.returncode == 0


class Device(FakeBackend):
    """A backend with batches in flight that takes frames as captured."""

    max_batch = 2

    def __init__(self, *, resizes: bool) -> None:
        super().__init__(10, 32)
        self.resizes = resizes
        self.frames: list[tuple[int, ...]] = []

    def submit(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The images are the ticket."""
        return images

    def submit_frames(self, frames: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """Note the frames, and preprocess them."""
        self.frames += [frame.shape for frame in frames]
        return np.stack([preprocess_bgr(frame, OPTIONS.preprocess) for frame in frames])

    def result(self, ticket: npt.NDArray[np.uint8]) -> Logits:
        """The logits."""
        return self.infer(ticket)

    def infer_frames(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Logits:
        """Both at once."""
        return self.result(self.submit_frames(frames))


def test_a_device_that_preprocesses_gets_frames_as_captured() -> None:
    """The frames reach it unchanged, and preprocessing takes no processor time; the predictions are the same."""
    answers, times = [], []
    for device in (Device(resizes=True), Device(resizes=False)):
        sink = Collector()
        run(device, [_source(4)], [sink], OPTIONS)
        answers.append([prediction.top for prediction in sink.predictions])
        times.append([prediction.stages_ms["preprocess"] for prediction in sink.predictions])
        shapes = {frame.image.shape for frame in _source(4)} if device.resizes else set()
        assert set(device.frames) == shapes
    assert answers[0] == answers[1]
    assert times[0] == [0.0] * 4
    assert min(times[1]) > 0


@pytest.mark.parametrize(("side", "ahead"), [(64, 4), (3000, 2), (6000, 1)])
def test_frames_decoded_ahead_are_limited_in_bytes(side: int, ahead: int) -> None:
    """Four frames of a file wait at most, and 64 MiB of them, but for a single larger one."""

    class Large(SyntheticSource):
        def __iter__(self) -> Iterator[Frame]:
            for index in range(9):
                yield Frame(np.broadcast_to(np.uint8(0), (side, side, 3)), index, 0, "large")

    reader = FileReader([Large("synthetic://?width=8&height=8")], threading.Condition())
    reader.start()
    found: list[Frame] = []
    while len(found) < 9:
        deadline = time.monotonic() + 10
        while len(reader._frames) < min(ahead, 9 - len(found)) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(reader._frames) == min(ahead, 9 - len(found))
        found += reader.take(1)
    assert [frame.index for frame in found] == list(range(9))
    reader.stop()
