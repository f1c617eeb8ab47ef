"""resize.py from kernels to pixels, through PyCUDA's stand-in and the real cuda.core, with kernels translated or compiled for the
CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from standins import pycuda_driver
from standins.cuda_driver import said

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.core.records import Interpolation, Preprocess
from edge_resnet.images.preprocess import preprocess_bgr
from edge_resnet.runtime.tensorrt import resize
from edge_resnet.runtime.tensorrt.cuda import Cuda, open_cuda
from edge_resnet.runtime.tensorrt.kernels import compile_kernels, shipped_ptx
from edge_resnet.runtime.tensorrt.resize import GpuResize

REPO = Path(__file__).resolve().parents[3]
Pixels = npt.NDArray[np.uint8]
SMALL = Preprocess(32, 24)


class Bench:
    """A GpuResize with its stream and the memory for its result, as a slot has."""

    def __init__(self, cuda: Cuda, kernels: bytes, spec: Preprocess, max_frames: int) -> None:
        self.cuda, self.spec = cuda, spec
        with cuda.current("test"):
            self.resize = GpuResize(cuda, kernels, spec, max_frames)
            self.stream = cuda.stream()
            self.target = cuda.memory(max_frames * spec.crop**2 * 3 + 64)

    def queue(self, *frames: Any) -> None:
        """Queue frames while the context is current."""
        with self.cuda.current("the GPU failed while it resized"):
            self.resize.queue(frames, self.target.address, self.stream)

    def wait(self, count: int) -> Pixels:
        """The result of that many frames."""
        with self.cuda.current("the GPU failed while it resized"):
            self.stream.synchronize()
        size = count * self.spec.crop**2 * 3
        content = pycuda_driver.MEMORY[self.target.address]
        assert (content[-64:] == 171).all(), "the result's end was passed"
        return content[:size].reshape(count, self.spec.crop, self.spec.crop, 3).copy()

    def now(self, *frames: Pixels) -> Pixels:
        """The result of these frames, at once."""
        self.queue(*frames)
        return self.wait(len(frames))

    def free(self) -> None:
        """Free everything."""
        with self.cuda.current("test"):
            self.resize.free()
            self.target.free()
        self.cuda.close()


@pytest.fixture(scope="module", params=["ptx", "cubin"])
def kernels(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> bytes:
    """What the driver loads: the PTX of the package, and what the stand-in of nvcc compiles."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to stand in for nvcc")
    if request.param == "ptx":
        return shipped_ptx()
    folder = tmp_path_factory.mktemp("kernels")
    nvcc = Path(shutil.copy(REPO / "tests/standins/nvcc", folder / "nvcc"))
    nvcc.chmod(0o755)
    return compile_kernels(nvcc, "8.7", folder / "cache").read_bytes()


@pytest.fixture
def make(kernels: bytes, gpu: Callable[[bool], None]) -> Iterator[Callable[..., Bench]]:
    """Makes a bench on a GPU with or without its own memory; afterwards, nothing may be left on the GPU."""
    benches: list[Bench] = []

    def made(spec: Preprocess = SMALL, max_frames: int = 4, *, integrated: bool = False, content: bytes = kernels) -> Bench:
        gpu(integrated)
        cuda = open_cuda()
        try:
            benches.append(Bench(cuda, content, spec, max_frames))
        except BaseException:
            cuda.close()
            raise
        return benches[-1]

    yield made
    for bench in benches:
        bench.free()
    if not any(bench.cuda.mapped for bench in benches):
        assert not pycuda_driver.MEMORY


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def expected(spec: Preprocess, *frames: Pixels) -> Pixels:
    return np.stack([preprocess_bgr(frame, spec) for frame in frames])


@pytest.mark.parametrize(
    ("spec", "integrated"),
    [
        (Preprocess(256, 224), False),
        (Preprocess(256, 224), True),
        (Preprocess(32, 32), True),
        (Preprocess(320, 288), False),
        (Preprocess(235, 224, "bicubic"), False),
        (Preprocess(32, 32, "bicubic"), True),
    ],
)
def test_cameras_frames_are_preprocessed_exactly(make: Callable[..., Bench], spec: Preprocess, integrated: bool) -> None:
    """From one pixel to 4K, tall and wide, the crop's size and smaller: the bytes of preprocess_bgr, on both kinds of GPU."""
    bench = make(spec, integrated=integrated)
    for size in [(1, 1), (1, 900), (900, 1), (32, 32), (224, 224), (288, 290), (480, 640), (1280, 720), (2160, 3840)]:
        np.testing.assert_array_equal(bench.now(noise(*size)), expected(spec, noise(*size)))


@pytest.mark.parametrize("method", get_args(Interpolation))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_batches_of_any_frames_are_preprocessed_exactly(
    make: Callable[..., Bench], method: Interpolation, data: st.DataObject
) -> None:
    """Many batches of frames whose sizes grow, shrink and repeat, while few sizes are kept."""
    bench, size = make(Preprocess(32, 24, method)), st.tuples(st.integers(1, 90), st.integers(1, 90))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resize, "_SIZES", 3)
        for seed, sizes in enumerate(data.draw(st.lists(st.lists(size, min_size=1, max_size=4), min_size=1, max_size=5))):
            assume(all(max(pair) < 40 * min(pair) for pair in sizes))
            frames = [noise(*pair, seed) for pair in sizes]
            np.testing.assert_array_equal(bench.now(*frames), expected(bench.spec, *frames))


def test_frames_may_be_views(make: Callable[..., Bench]) -> None:
    """Strided, flipped and read-only frames work, and no frame is changed."""
    bench, whole = make(), noise(120, 160)
    kept = whole.copy()
    whole.flags.writeable = False
    views = [whole[::-1], whole[:, ::-2], whole[::2, 10:90, ::-1], whole.transpose(1, 0, 2)]
    np.testing.assert_array_equal(bench.now(*views), expected(bench.spec, *views))
    np.testing.assert_array_equal(whole, kept)


@pytest.mark.parametrize("integrated", [False, True])
def test_the_caller_may_reuse_a_frame_at_once(make: Callable[..., Bench], integrated: bool) -> None:
    """Every frame of a batch may be overwritten before the GPU has read the first."""
    bench = make(integrated=integrated)
    frames = [noise(64, 80, seed) for seed in range(4)]
    wanted = expected(bench.spec, *frames)
    bench.queue(*frames)
    for frame in frames:
        frame[:] = 0
    np.testing.assert_array_equal(bench.wait(4), wanted)


def test_only_the_crops_part_crosses_the_bus(make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sides of a wide frame are not copied; a known size takes one copy and two launches, and synchronizes nothing."""
    bench = make(Preprocess(32, 32))
    bench.now(noise(64, 640))
    taken = sum(memory.size for memory in pycuda_driver.MEMORY.values())
    assert taken < 64 * 640 * 3 / 2
    monkeypatch.setitem(pycuda_driver.FAULTS, "synchronize", 1)
    monkeypatch.setitem(pycuda_driver.FAULTS, "mem_alloc", 1)
    bench.queue(noise(64, 640, 1))
    assert len(pycuda_driver.STREAMS[bench.stream.handle].work) == 3
    pycuda_driver.FAULTS.clear()
    np.testing.assert_array_equal(bench.wait(1), expected(bench.spec, noise(64, 640, 1)))


def test_memory_is_bounded(make: Callable[..., Bench]) -> None:
    """After hundreds of sizes the tables of eight remain, and a batch with more than eight sizes still works."""
    bench = make(max_frames=10)
    for side in range(30, 130):
        bench.now(noise(side, side))
    frames = [noise(side, side + 1) for side in range(30, 130, 10)]
    np.testing.assert_array_equal(bench.now(*frames), expected(bench.spec, *frames))
    bench.now(noise(30, 30))
    # Tables of eight sizes, ten frames, the result of the first pass, and the final result.
    assert len(pycuda_driver.MEMORY) == 8 * 2 + 10 + 1 + 1


def test_known_sizes_may_stand_elsewhere_in_a_batch(make: Callable[..., Bench]) -> None:
    """A large frame that was first is second, and then a batch of known sizes is longer than all before."""
    bench, large, small = make(), noise(90, 80), noise(9, 9)
    for frames in ((large,), (small,), (small, large), (small, small, large, large)):
        np.testing.assert_array_equal(bench.now(*frames), expected(bench.spec, *frames))


def test_the_sizes_used_last_are_kept(make: Callable[..., Bench]) -> None:
    """The tables of a camera are kept while frames of twenty other sizes come between its frames."""
    bench, frame = make(), noise(99, 99)
    bench.now(frame)
    for side in range(30, 50):
        bench.now(noise(side, side))
        pycuda_driver.FAULTS["mem_alloc"] = 1
        np.testing.assert_array_equal(bench.now(frame), expected(bench.spec, frame))
        pycuda_driver.FAULTS.clear()


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("RGB", (4, 4)),
        [[[1, 2, 3]]],
    ],
)
def test_what_is_no_frame_is_refused(make: Callable[..., Bench], frame: Any) -> None:
    """Grey, float and empty frames and other types are refused before anything is queued, even the frame before them."""
    bench = make()
    with pytest.raises(ConfigError):
        bench.queue(noise(9, 9), frame)
    assert not pycuda_driver.STREAMS[bench.stream.handle].work


def test_too_many_and_no_frames_are_refused(make: Callable[..., Bench]) -> None:
    """A batch has at least one frame, and at most as many as the memory is for."""
    bench = make(max_frames=2)
    for frames in ([], [noise(9, 9)] * 3):
        with pytest.raises(ConfigError, match="between 1 and 2 frames"):
            bench.queue(*frames)


@pytest.mark.parametrize(
    ("call", "times", "words"),
    [
        ("mem_alloc", 7, "GPU memory ran out"),
        ("pagelocked_empty", 2, said("pagelocked_empty")),
        ("memcpy_htod_async", 6, said("memcpy_htod_async")),
        ("synchronize", 2, said("synchronize")),
        ("prepared_async_call", 4, said("prepared_async_call")),
    ],
)
def test_a_cuda_error_is_a_backend_error_and_not_the_end(make: Callable[..., Bench], call: str, times: int, words: str) -> None:
    """Whichever call fails for two frames of new, larger sizes, the next batch is right, and no memory is lost."""
    frames = [noise(40, 50), noise(60, 50)]
    for turn in range(times):
        bench = make()
        bench.now(noise(35, 35))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pycuda_driver, "_call", failing(call, turn))
            with pytest.raises(BackendError, match=f"while it resized: {words}") as caught:
                bench.queue(*frames)
        assert caught.value.hint
        pycuda_driver.STREAMS[bench.stream.handle].work.clear()
        np.testing.assert_array_equal(bench.now(*frames), expected(bench.spec, *frames))


def failing(call: str, turn: int) -> Callable[..., None]:
    """The stand-in's check of a call, which fails once, after ``turn`` successful calls."""
    real, left = pycuda_driver._call, [turn + 1]

    def check(name: str, *, current: bool = True) -> None:
        left[0] -= name == call
        if name == call and left[0] == 0:
            pycuda_driver.FAULTS[call] = 1
        real(name, current=current)

    return check


@pytest.mark.parametrize("call", ["module_from_buffer", "get_function"])
def test_kernels_that_do_not_load_are_a_backend_error(make: Callable[..., Bench], call: str) -> None:
    """A driver that refuses the module is an error of one line."""
    pycuda_driver.FAULTS[call] = 1
    with pytest.raises(BackendError, match=f"test: {said(call)}"):
        make()
    with pytest.raises(BackendError, match=r"device kernel image is invalid|CUDA_ERROR_INVALID_IMAGE"):
        make(content=b"no cubin")


def test_free_gives_all_back_and_may_be_repeated(make: Callable[..., Bench]) -> None:
    """Only the caller's own memory is left."""
    bench = make()
    bench.now(noise(50, 60), noise(70, 60))
    with bench.cuda.current("test"):
        bench.resize.free()
        bench.resize.free()
    assert list(pycuda_driver.MEMORY) == [bench.target.address]
