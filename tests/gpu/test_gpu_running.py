"""How the backend runs on a GPU: CUDA graphs, several batches at once, threads, torch beside it, ten thousand calls, closing."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.core.errors import BackendError
from edge_resnet.core.records import Precision
from edge_resnet.device.gpu import LIBRARY

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800), pytest.mark.filterwarnings("default::DeprecationWarning")]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_graphs_change_no_bit(
    opened: Callable[..., Any], pixels: Callable[[str, int], Any], network: str, precision: Precision
) -> None:
    """Alternating batch sizes, often enough that each is captured and launched after others, give the bits without graphs."""
    recorded, plain = opened(network, precision, slots=1), opened(network, precision, slots=1, graphs=False)
    images = pixels(network, 40)
    for turn in range(5):
        for count in (1, 8, 5, 32, 1, 40):
            rolled = np.roll(images, turn, axis=0)[:count]
            np.testing.assert_array_equal(recorded.infer(rolled), plain.infer(rolled))
    kept = recorded._slots[0]._graphs
    assert {key for key, graph in kept.items() if graph is not None} == {(count, "both") for count in (1, 5, 8, 32)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_gpus_own_times_add_up(
    opened: Callable[..., Any], pixels: Callable[[str, int], Any], network: str, precision: Precision
) -> None:
    """With timing, the bits are the same; every part takes time, and all parts together take less than the caller waits."""
    backend = opened(network, precision, slots=1)
    images = pixels(network, 32)
    backend.infer_timed(images)
    splits, waits = [], []
    for _ in range(20):
        began = time.perf_counter()
        logits, split = backend.infer_timed(images)
        waits.append(1e3 * (time.perf_counter() - began))
        splits.append(sum(split.values()))
        assert all(milliseconds > 0 for milliseconds in split.values())
        np.testing.assert_array_equal(logits, backend.infer(images))
    assert "compute" in split
    assert np.median(splits) < np.median(waits)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_several_batches_at_once_change_no_bit(
    opened: Callable[..., Any], pixels: Callable[[str, int], Any], network: str, precision: Precision
) -> None:
    """Batches submitted before the last result is taken, on two and on four slots, taken in order and in reverse."""
    plain = opened(network, precision, slots=1, graphs=False)
    images = pixels(network, 64)
    pieces = [images[start : start + count] for start, count in ((0, 8), (8, 1), (9, 8), (17, 5), (22, 32), (3, 8))] * 3
    wanted = [plain.infer(piece) for piece in pieces]
    for slots in (2, 4):
        backend = opened(network, precision, slots=slots)
        under_way: deque[Any] = deque()
        found: list[Any] = []
        for piece in pieces:
            if len(under_way) == slots:
                found.append(backend.result(under_way.popleft()))
            under_way.append(backend.submit(piece))
        found += [backend.result(ticket) for ticket in under_way]
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        tickets = [backend.submit(piece) for piece in pieces[:slots]]
        for index in reversed(range(slots)):
            np.testing.assert_array_equal(backend.result(tickets[index]), wanted[index])


def test_threads_get_their_own_answers(opened: Callable[..., Any], pixels: Callable[[str, int], Any], network: str) -> None:
    """Eight threads with their own batches, some larger than the engine's, get the bits that one thread gets."""
    backend = opened(network, "fp16")
    images = pixels(network, 48)
    counts = (1, 8, 3, 35, 1, 16, 32, 5)
    wanted = [backend.infer(images[seed : seed + count]) for seed, count in enumerate(counts)]

    def work(seed: int) -> list[bool]:
        piece = images[seed : seed + counts[seed]]
        return [np.array_equal(backend.infer(piece), wanted[seed]) for _ in range(25)]

    with ThreadPoolExecutor(len(counts)) as pool:
        assert all(all(found) for found in pool.map(work, range(len(counts))))


def test_torch_and_the_backend_share_the_gpu(opened: Callable[..., Any], pixels: Callable[[str, int], Any]) -> None:
    """torch computes before, between and after, in the same process, and neither affects the other."""
    torch = pytest.importorskip("torch", reason="no torch", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a driver older than torch's CUDA
        if not torch.cuda.is_available():
            pytest.skip("torch has no CUDA here")
    left, right = torch.rand(256, 256, device="cuda"), torch.rand(256, 256, device="cuda")
    product = (left @ right).cpu()
    images = pixels("resnet18", 8)
    with opened("resnet18", "fp16") as backend:
        wanted = backend.infer(images)
        for _ in range(10):
            assert torch.equal((left @ right).cpu(), product)
            np.testing.assert_array_equal(backend.infer(images), wanted)
    assert torch.equal((left @ right).cpu(), product)


def memory() -> tuple[int, int]:
    """Free and total bytes of the GPU whose context is current, as the driver says it."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert ctypes.CDLL(LIBRARY).cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    return free.value, total.value


def test_thousands_of_inferences_leave_nothing_behind(
    opened: Callable[..., Any], pixels: Callable[[str, int], Any], tell: Callable[[str], None]
) -> None:
    """After 10,000 calls, GPU memory, process memory, threads and open files are what they were after the first calls."""
    backend = opened("resnet18", "int8")
    images = pixels("resnet18", 40)
    frames = [np.ascontiguousarray(np.tile(image, (2, 3, 1))[..., ::-1]) for image in images[:4]]
    calls = int(os.environ.get("EDGE_RESNET_GPU_INFERENCES", "10000"))

    def work(turns: int) -> None:
        for turn in range(turns):
            if turn % 10 == 9:
                backend.infer_frames(frames[: 1 + turn % 4])
            elif turn % 10 == 5:
                backend.result(backend.submit(images[:8]))
            else:
                backend.infer(images[: (1, 8, 3, 40)[turn % 4]])

    def state() -> dict[str, int]:
        gc.collect()
        with backend._cuda.current("memory was asked for"):
            free, total = memory()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        return {
            "GPU MiB": (total - free) >> 20,
            "RSS MiB": int(status["VmRSS"].split()[0]) >> 10,
            "threads": int(status["Threads"]),
            "files": len(list(Path("/proc/self/fd").iterdir())),
        }

    work(max(100, calls // 20))
    before = state()
    work(calls)
    after = state()
    tell(f"{calls} calls: " + ", ".join(f"{name} {before[name]} -> {after[name]}" for name in before))
    assert after["GPU MiB"] <= before["GPU MiB"] + 2
    assert after["RSS MiB"] <= before["RSS MiB"] + 16
    assert after["threads"] <= before["threads"]
    assert after["files"] <= before["files"]


def test_backends_may_be_opened_and_closed_in_any_order(opened: Callable[..., Any], pixels: Callable[[str, int], Any]) -> None:
    """Any of three may be closed first; the others still work, and so do three new ones."""
    images = pixels("resnet18", 8)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        backends = [opened("resnet18", precision) for precision in PRECISIONS]
        wanted = [[backend.infer(images) for _ in range(3)][-1] for backend in backends]
        left = set(order)
        for index in order:
            backends[index].close()
            left.remove(index)
            for other in left:
                np.testing.assert_array_equal(backends[other].infer(images), wanted[other])
        with pytest.raises(BackendError):
            backends[0].infer(images)


def test_a_closed_backend_says_so(opened: Callable[..., Any], pixels: Callable[[str, int], Any]) -> None:
    """Closed with running batches, twice and from another thread: later calls raise a BackendError, and nothing crashes."""
    images = pixels("resnet18", 8)
    backend = opened("resnet18", "int8")
    tickets = [backend.submit(images), backend.submit(images)]
    thread = threading.Thread(target=backend.close)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    backend.close()
    for late in (
        lambda: backend.result(tickets[0]),
        lambda: backend.infer(images),
        lambda: backend.submit(images),
        lambda: backend.infer_frames([images[0]]),
        lambda: backend._cuda.current("late").__enter__(),
    ):
        with pytest.raises(BackendError):
            late()
