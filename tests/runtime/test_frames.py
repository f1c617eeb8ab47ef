"""Frames as captured, through TensorRT's backend, on stand-ins; the kernels are the real ones, compiled for the CPU."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from standins import pycuda_driver
from standins.tensorrt_run import answers, plan

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.preprocess import preprocess_bgr
from edge_resnet.runtime.backend import PipelinedBackend

REPO = Path(__file__).resolve().parents[2]
SPEC = Preprocess(resize=9, crop=8)
SIZES = ((8, 8), (9, 16), (120, 160), (33, 17), (1, 5), (64, 48), (480, 640))
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to stand in for nvcc")


@pytest.fixture(autouse=True)
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in of nvcc is first on the PATH, and this test has its own cache."""
    folder = tmp_path / "cuda/bin"
    folder.mkdir(parents=True)
    path = Path(shutil.copy(REPO / "tests/standins/nvcc", folder / "nvcc"))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("NVCC_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def frames(count: int, seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    """That many frames, of several sizes."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZES[(seed + index) % len(SIZES)], 3), dtype=np.uint8) for index in range(count)]


def expected(batch: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """The logits for the frames as the CPU preprocesses them."""
    return answers(np.stack([preprocess_bgr(frame, SPEC) for frame in batch]))


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("integrated", [False, True])
def test_frames_of_any_size_get_the_processors_answers(make: Callable[..., Any], integrated: bool, graphs: bool) -> None:
    """One frame, a batch, and more than the largest batch, repeated and mixed with images: exactly the same logits."""
    with make(integrated=integrated, graphs=graphs) as backend:
        assert isinstance(backend, PipelinedBackend)
        assert backend.resizes
        for seed, count in enumerate((1, 4, 1, 3, 1, 9, 4, 4, 13)):
            batch = frames(count, seed)
            np.testing.assert_array_equal(backend.infer_frames(batch), expected(batch))
            images = np.stack([preprocess_bgr(frame, SPEC) for frame in batch])
            np.testing.assert_array_equal(backend.infer(images), answers(images))
    if not integrated:
        assert not pycuda_driver.MEMORY


def test_the_caller_may_reuse_submitted_frames(make: Callable[..., Any]) -> None:
    """Frames that are overwritten before ``result`` do not change it; two batches run at once."""
    with make() as backend:
        batches = [frames(count, count) for count in (2, 3)]
        wanted = [expected(batch) for batch in batches]
        tickets = [backend.submit_frames(batch) for batch in batches]
        for batch in batches:
            for frame in batch:
                frame[:] = 0
        for ticket, logits in zip(tickets, wanted, strict=True):
            np.testing.assert_array_equal(backend.result(ticket), logits)
        with pytest.raises(ConfigError, match="at most 4"):
            backend.submit_frames(frames(5))


def test_many_threads_get_their_own_answers(make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads run frames at once: nvcc compiles for a driver that refuses PTX, once, and each gets its own logits."""
    monkeypatch.setattr(pycuda_driver, "NEWEST_ISA", (7, 4))
    wrong: list[int] = []

    def work(seed: int) -> None:
        for turn in range(6):
            batch = frames(1 + (seed + turn) % 7, 10 * seed + turn)
            if not np.array_equal(backend.infer_frames(batch), expected(batch)):
                wrong.append(seed)

    with make() as backend:
        threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert len((tmp_path / "log").read_text(encoding="utf-8").splitlines()) == 1


def test_batches_below_the_smallest_are_filled_up(make: Callable[..., Any]) -> None:
    """An engine for batches of three and more takes one frame."""
    with make(content=plan(min_batch=3)) as backend:
        np.testing.assert_array_equal(backend.infer_frames(frames(1)), expected(frames(1)))


def test_the_packages_kernels_come_first(make: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The PTX is used where the driver takes it, in silence but for a line of level INFO; nvcc is not called."""
    with caplog.at_level(logging.INFO, logger="edge_resnet.runtime.tensorrt.kernels"), make() as backend:
        np.testing.assert_array_equal(backend.infer_frames(frames(2)), expected(frames(2)))
    said = [(record.levelname, record.getMessage()) for record in caplog.records if record.name.endswith("kernels")]
    assert said == [("INFO", "frames are resized on the GPU, by the kernels of this package")]
    assert not (tmp_path / "log").exists()


def test_an_old_driver_gets_kernels_from_nvcc(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver whose CUDA is older than the PTX refuses it: one warning, and the same bytes by what nvcc compiles."""
    monkeypatch.setattr(pycuda_driver, "NEWEST_ISA", (7, 4))
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), make() as backend:
        assert backend.resizes
        for count in (2, 9):
            np.testing.assert_array_equal(backend.infer_frames(frames(count)), expected(frames(count)))
    (record,) = caplog.records
    assert record.getMessage().startswith("the kernels of this package are not used: the GPU refuses the kernels: ")
    assert "the provided PTX was compiled with an unsupported toolchain." in record.getMessage()
    assert len((tmp_path / "log").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize(
    ("why", "words"), [("no nvcc", "no nvcc"), ("nvcc fails", "no such GPU"), ("the GPU refuses", "refuses")]
)
def test_without_kernels_the_processor_resizes(
    make: Callable[..., Any],
    nvcc: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    why: str,
    words: str,
) -> None:
    """The logits are the same, and each refusal is logged once, the package's kernels' first."""
    if why == "no nvcc":
        monkeypatch.setattr("edge_resnet.runtime.tensorrt.kernels.find_nvcc", lambda: None)
    elif why == "nvcc fails":
        nvcc.write_text("#!/bin/sh\n[ $1 = --version ] && echo 13 && exit 0\necho 'fatal: no such GPU' >&2; exit 1\n")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), make() as backend:
        pycuda_driver.FAULTS["module_from_buffer"] = 2 if why == "the GPU refuses" else 1
        assert not backend.resizes
        for count in (2, 9):
            np.testing.assert_array_equal(backend.infer_frames(frames(count)), expected(frames(count)))
        np.testing.assert_array_equal(backend.result(backend.submit_frames(frames(3))), expected(frames(3)))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("the kernels of this package are not used: the GPU refuses the kernels: ")
    assert said[1].startswith("frames are resized on the CPU: ")
    assert words in said[1]


def test_bicubic_frames_are_resized_by_the_kernels(make: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """They get the processor's pixels, tall ones among them, and nothing is warned of."""
    spec = replace(SPEC, interpolation="bicubic")
    tall = np.random.default_rng(5).integers(0, 2, (64, 9, 3), dtype=np.uint8) * 255
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), make(preprocess=spec) as backend:
        assert backend.resizes
        batch = [*frames(3), tall]
        pixels = np.stack([preprocess_bgr(frame, spec) for frame in batch])
        np.testing.assert_array_equal(backend.infer_frames(batch), answers(pixels))
    assert caplog.records == []


@pytest.mark.parametrize("call", ["prepared_async_call", "memcpy_htod_async", "pagelocked_empty", "mem_alloc", "synchronize"])
def test_a_cuda_error_is_a_backend_error_and_not_the_end(make: Callable[..., Any], call: str) -> None:
    """Whichever call fails while frames are preprocessed, the next frames are run."""
    with make(slots=1) as backend:
        assert backend.resizes
        pycuda_driver.FAULTS[call] = 1
        with pytest.raises(BackendError) as caught:
            backend.infer_frames(frames(2))
        assert caught.value.hint
        pycuda_driver.FAULTS.clear()
        for stream in pycuda_driver.STREAMS.values():
            stream.work.clear()
        for seed in range(4):
            np.testing.assert_array_equal(backend.infer_frames(frames(5, seed)), expected(frames(5, seed)))
    assert not pycuda_driver.MEMORY


def test_wrong_frames_are_refused(make: Callable[..., Any]) -> None:
    """A wrong dtype, wrong channels, and no frame at all; the slot is free afterwards."""
    with make(slots=1) as backend:
        for wrong in (np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)):
            with pytest.raises(ConfigError):
                backend.infer_frames([wrong])
        for ask in (backend.infer_frames, backend.submit_frames):
            with pytest.raises(ConfigError, match="no frame"):
                ask([])
        np.testing.assert_array_equal(backend.infer_frames(frames(1)), expected(frames(1)))


@pytest.mark.parametrize("graphs", [True, False])
def test_the_loop_keeps_the_device_busy(make: Callable[..., Any], graphs: bool) -> None:
    """In streaming.loop, with batches running while the next is taken, every frame gets its own prediction, in order."""
    from edge_resnet.streaming.loop import RunOptions, run
    from edge_resnet.streaming.sources import open_source

    def source() -> Any:
        return open_source("synthetic://?frames=60&width=40&height=30")

    seen: list[int] = []

    class Kept:
        name, wants_frames = "kept", False

        def write(self, prediction: Any, frame: Any) -> None:
            seen.append(prediction.top[0].class_index)

    options = RunOptions(SPEC, tuple("abcde"), batch=9)  # the engine takes four
    with make(graphs=graphs) as backend:
        summary = run(backend, [source()], [Kept()], options)  # type: ignore[list-item]
    wanted = [int(expected([frame.image])[0].argmax()) for frame in source()]
    assert (summary.frames, seen) == (60, wanted)
