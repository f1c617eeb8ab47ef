"""Preprocessing on a GPU: the bytes of preprocess_bgr for frames of any size, and the logits for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.device.gpu import first_gpu
from edge_resnet.device.machine import find_nvcc
from edge_resnet.images.imageset import ImageSet
from edge_resnet.images.preprocess import preprocess_bgr
from edge_resnet.runtime.tensorrt.kernels import compile_kernels, shipped_ptx

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800), pytest.mark.filterwarnings("default::DeprecationWarning")]

#: Height and width: of cameras, upright, odd, tiny, long, the network's input, and with one side not resized.
SIZES = (
    (1080, 1920), (720, 1280), (480, 640), (2160, 3840), (1920, 1080), (360, 640), (479, 641), (1079, 1917), (333, 777),
    (224, 224), (256, 256), (257, 255), (256, 341), (341, 256), (223, 225), (97, 101), (32, 32), (8, 8), (3, 5), (1, 1),
    (1, 40), (40, 1), (64, 2000), (2000, 64), (601, 600), (1000, 1000),
)  # fmt: skip


@pytest.fixture
def resizing(opened: Callable[..., Any]) -> Callable[..., Any]:
    """Opens an engine that preprocesses on the GPU: the kernels ship with the package, so every driver should take them."""

    def found(network: str, **how: Any) -> Any:
        backend = opened(network, "fp16", **how)
        assert backend.resizes, "the kernels of the package are not used: the log says why"
        return backend

    return found


def noise(height: int, width: int) -> Any:
    return np.random.default_rng(height * 10_007 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def on_gpu(backend: Any, frames: list[Any], kernels: bytes | None = None) -> Any:
    """The bytes that the GPU makes of the frames: a slot's work without the network. ``kernels``: others than the backend's."""
    from edge_resnet.runtime.tensorrt.resize import GpuResize

    spec, cuda = backend._plan.preprocess, backend._cuda
    with cuda.current("the GPU failed while frames were resized"):
        resize = GpuResize(cuda, kernels or backend._kernels.module(), spec, len(frames))
        target, stream = cuda.buffer((len(frames), spec.crop, spec.crop, 3), np.uint8), cuda.stream()
        try:
            target.host[:] = 77
            resize.queue(frames, target.address, stream)
            target.to_host(stream, len(frames))
            stream.synchronize()
            return target.host.copy()
        finally:
            resize.free()
            target.free()
            del stream


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_the_gpu_makes_the_same_bytes(resizing: Callable[..., Any], size: tuple[int, int]) -> None:
    """For noise, where every value differs from its neighbours, they equal those of preprocess_bgr."""
    backend = resizing("resnet18", slots=1)
    frame = noise(*size)
    found, wanted = on_gpu(backend, [frame])[0], preprocess_bgr(frame, backend._plan.preprocess)
    off = np.abs(found.astype(int) - wanted)
    assert off.max() == 0, f"{np.count_nonzero(off)} of {off.size} values differ, by up to {off.max()}"


def test_the_driver_takes_the_packages_kernels(resizing: Callable[..., Any]) -> None:
    """The PTX is what is loaded: the driver compiles it, and nvcc is not needed."""
    assert resizing("resnet18", slots=1)._kernels.module() == shipped_ptx()


def test_nvccs_kernels_make_the_same_bytes(resizing: Callable[..., Any], tmp_path: Path) -> None:
    """What a driver that refuses the PTX would get."""
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc to compile the kernels with")
    backend, frames = resizing("resnet18", slots=1), [noise(1080, 1920), noise(479, 641)]
    cubin = compile_kernels(nvcc, first_gpu().compute_capability, tmp_path).read_bytes()
    np.testing.assert_array_equal(on_gpu(backend, frames, cubin), on_gpu(backend, frames))


def test_a_batch_may_mix_sizes(resizing: Callable[..., Any]) -> None:
    """More sizes than are kept, in one batch, repeated in other orders, as views and flipped."""
    backend = resizing("resnet18", slots=1)
    frames = [noise(*size)[::-1, ::2] for size in SIZES if min(size) > 1]
    for turn in range(3):
        rolled = frames[turn:] + frames[:turn]
        wanted = np.stack([preprocess_bgr(frame, backend._plan.preprocess) for frame in rolled])
        np.testing.assert_array_equal(on_gpu(backend, rolled), wanted)


def test_frames_get_the_logits_of_their_images(resizing: Callable[..., Any], sample: ImageSet, network: str) -> None:
    """infer_frames and submit_frames equal infer of preprocess_bgr, bit for bit, also for a batch that is launched as a graph."""
    backend = resizing(network)
    frames = [np.ascontiguousarray(sample.load(index)[..., ::-1]) for index in range(0, len(sample), max(1, len(sample) // 40))]
    images = np.stack([preprocess_bgr(frame, backend._plan.preprocess) for frame in frames])
    for _ in range(4):
        for count in (1, 7, len(frames)):
            np.testing.assert_array_equal(backend.infer_frames(frames[:count]), backend.infer(images[:count]))
    tickets = [backend.submit_frames(frames[:5]), backend.submit_frames(frames[5:10])]
    for start, ticket in zip((0, 5), tickets, strict=True):
        np.testing.assert_array_equal(backend.result(ticket), backend.infer(images[start : start + 5]))


def test_frames_and_images_may_alternate(resizing: Callable[..., Any], pixels: Callable[[str, int], Any]) -> None:
    """On one slot, which both fill: neither reads the data of the other."""
    backend = resizing("resnet18", slots=1)
    images, frames = pixels("resnet18", 4), [noise(480, 640), noise(720, 1280)]
    wanted = backend.infer(images), backend.infer_frames(frames)
    for _ in range(6):
        np.testing.assert_array_equal(backend.infer(images), wanted[0])
        np.testing.assert_array_equal(backend.infer_frames(frames), wanted[1])
