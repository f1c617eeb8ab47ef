"""inference.py and slots.py with PyCUDA and cuda.core, on strict stand-ins of five versions, whose streams only run when they
are synchronized."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from standins import pycuda_driver, tensorrt_run
from standins.cuda_driver import said
from standins.surface import VERSIONS
from standins.tensorrt_run import answers, plan

from edge_resnet.core.errors import BackendError, ConfigError, IncompatibleEngineError

#: A call, and the text of the error if it fails.
FAULTS = {
    "memcpy_htod_async": f"while it started the network: {said('memcpy_htod_async')}",
    "memcpy_dtoh_async": f"while it started the network: {said('memcpy_dtoh_async')}",
    "synchronize": f"while it ran the network: {said('synchronize')}",
    "push": f"while it (started|ran) the network: {said('push')}",
}
OPENING = {
    "init": "driver does not start",
    "retain_primary_context": "driver does not start",
    "Stream": "cannot be opened",
    "mem_alloc": "GPU memory ran out",
    "pagelocked_empty": "cannot be opened",
}


def random_images(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_and_kind_of_gpu_answers(make: Callable[..., Any], version: str, integrated: bool) -> None:
    """Batches of one, of the engine's largest, and of more, in any order, get their own logits; then all memory is free."""
    with make(version, integrated=integrated) as backend:
        for count in (1, 4, 3, 9, 1, 13):
            found = backend.infer(random_images(count, count))
            assert (found.dtype, found.shape) == (np.float32, (count, 5))
            np.testing.assert_array_equal(found, answers(random_images(count, count)))
    if not integrated:
        assert not pycuda_driver.MEMORY


@pytest.mark.parametrize("dtype", ["FLOAT", "HALF"])
def test_answers_are_the_callers_and_float32(make: Callable[..., Any], dtype: str) -> None:
    """A later call does not change an earlier result, whatever type the engine writes."""
    with make(content=plan(dtype=dtype)) as backend:
        first = backend.infer(random_images(2))
        kept = first.copy()
        backend.infer(random_images(4, 1))
        np.testing.assert_array_equal(first, kept)
        assert first.dtype == np.float32


def test_batches_below_the_smallest_are_filled_up(make: Callable[..., Any]) -> None:
    """An engine for batches of three and more takes one image, and the last piece of seven."""
    with make(content=plan(min_batch=3)) as backend:
        for count in (1, 2, 7):
            np.testing.assert_array_equal(backend.infer(random_images(count)), answers(random_images(count)))


def test_batches_overlap(make: Callable[..., Any]) -> None:
    """Two submitted batches run at once, and their results may be taken in any order."""
    with make() as backend:
        tickets = [backend.submit(random_images(count, count)) for count in (2, 3)]
        assert sum(bool(stream.work) for stream in pycuda_driver.STREAMS.values()) == 2
        for ticket, count in reversed(list(zip(tickets, (2, 3), strict=True))):
            np.testing.assert_array_equal(backend.result(ticket), answers(random_images(count, count)))
        with pytest.raises(BackendError, match="ticket was used"):
            backend.result(tickets[0])
        with pytest.raises(ConfigError, match="at most 4"):
            backend.submit(random_images(5))


@pytest.mark.parametrize("integrated", [False, True])
def test_many_threads_get_their_own_answers(make: Callable[..., Any], integrated: bool) -> None:
    """Eight threads with batches larger than the engine's, on two slots: no mix-up, no deadlock, no context left."""
    wrong: list[str] = []

    def work(seed: int) -> None:
        for turn in range(12):
            images = random_images(1 + (seed + turn) % 11, 100 * seed + turn)
            if not np.array_equal(backend.infer(images), answers(images)):
                wrong.append(f"{seed}, {turn}")
        if pycuda_driver.depth():
            wrong.append("context")

    with make(integrated=integrated) as backend:
        threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


@pytest.mark.parametrize("call", FAULTS)
def test_a_cuda_error_is_a_backend_error_and_not_the_end(make: Callable[..., Any], call: str) -> None:
    """One line that says what failed; the slot is free again, and the next call works."""
    with make() as backend:
        for count in (2, 9):
            pycuda_driver.FAULTS[call] = 1
            with pytest.raises(BackendError, match=FAULTS[call]) as caught:
                backend.infer(random_images(count))
            assert caught.value.hint
        pycuda_driver.FAULTS.clear()
        for stream in pycuda_driver.STREAMS.values():
            stream.work.clear()
        for _ in range(5):
            np.testing.assert_array_equal(backend.infer(random_images(9)), answers(random_images(9)))


@pytest.mark.parametrize("call", OPENING)
def test_an_opening_that_fails_leaves_nothing(make: Callable[..., Any], call: str) -> None:
    """Whichever step fails, the error says so, and memory and context are released."""
    pycuda_driver.FAULTS[call] = 1
    with pytest.raises(BackendError, match=OPENING[call]):
        make()
    assert not pycuda_driver.MEMORY


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        ("deserialize_cuda_engine", IncompatibleEngineError, "version tag does not match"),
        ("create_execution_context", BackendError, "no execution context"),
        ("set_tensor_address", BackendError, "memory of images"),
    ],
)
def test_tensorrts_none_is_an_error(make: Callable[..., Any], call: str, kind: type[Exception], words: str) -> None:
    """While opening, with TensorRT's last error lines if there are any."""
    tensorrt_run.FAULTS[call] = 1
    with pytest.raises(kind, match=words):
        make()
    assert not pycuda_driver.MEMORY


@pytest.mark.parametrize(("call", "words"), [("execute_async_v3", "did not run"), ("set_input_shape", "a batch of 2")])
def test_tensorrts_false_is_an_error(make: Callable[..., Any], call: str, words: str) -> None:
    """A batch that was not run is an error, and the next one works."""
    with make() as backend:
        tensorrt_run.FAULTS[call] = 1
        with pytest.raises(BackendError, match=words):
            backend.infer(random_images(2))
        np.testing.assert_array_equal(backend.infer(random_images(3)), answers(random_images(3)))


def test_another_networks_engine_is_refused(make: Callable[..., Any]) -> None:
    """By its number of classes, and by the size of its image."""
    with pytest.raises(IncompatibleEngineError, match="another network"):
        make(classes=6)
    with pytest.raises(IncompatibleEngineError, match="another network"):
        make(content=plan(size=9))


def test_wrong_images_are_refused(make: Callable[..., Any]) -> None:
    """Wrong shape and dtype, before anything is done on the GPU."""
    with make() as backend:
        with pytest.raises(ConfigError):
            backend.infer(np.zeros((1, 9, 8, 3), np.uint8))
        with pytest.raises(ConfigError):
            backend.infer(np.zeros((1, 8, 8, 3), np.float32))


def test_close_ends_everything(make: Callable[..., Any]) -> None:
    """Closing twice, with a running batch, and with a thread that waits for a slot: an error, and no hang."""
    backend = make(slots=1)
    ticket = backend.submit(random_images(2))
    failed: list[Exception] = []

    def wait() -> None:
        try:
            backend.submit(random_images(1))
        except BackendError as error:
            failed.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    backend.close()
    backend.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(failed) == 1
    with pytest.raises(BackendError, match="ticket was used"):
        backend.result(ticket)
    with pytest.raises(BackendError, match="closed"):
        backend.infer(random_images(1))
    assert not pycuda_driver.MEMORY


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_graphs_change_no_answer(make: Callable[..., Any], version: str, integrated: bool) -> None:
    """Any batches in any order, often enough to be captured, give the logits of the network without graphs."""
    order = np.random.default_rng(0).integers(1, 10, 60)
    with make(version, integrated=integrated) as recorded, make(version, integrated=integrated, graphs=False) as plain:
        for seed, count in enumerate(order):
            images = random_images(int(count), seed)
            np.testing.assert_array_equal(recorded.infer(images), answers(images))
            np.testing.assert_array_equal(plain.infer(images), answers(images))


def test_a_batch_size_that_comes_again_is_launched_as_one(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The third batch of a size does not call TensorRT, and other sizes do not change that."""
    with make(slots=1) as backend:
        for count in (2, 3, 2, 3):
            backend.infer(random_images(count))
        tensorrt_run.FAULTS.update({"execute_async_v3": 9, "set_input_shape": 9})
        for count in (2, 3, 2):
            np.testing.assert_array_equal(backend.infer(random_images(count, 7)), answers(random_images(count, 7)))
        with pytest.raises(BackendError, match="a batch of 4"):
            backend.infer(random_images(4))


def test_many_batch_sizes_do_not_fill_the_memory(make: Callable[..., Any], libcuda: Path) -> None:
    """Eight of twelve sizes are captured, and the others work too."""
    with make(content=plan(max_batch=12), slots=1) as backend:
        for count in [*range(1, 13)] * 3:
            np.testing.assert_array_equal(backend.infer(random_images(count)), answers(random_images(count)))
        assert ctypes.CDLL(str(libcuda)).stub_executables() == 8


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_where_graphs_fail_the_network_runs_without(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    """The reason is logged once, and every batch is run."""
    monkeypatch.setenv("STUB_FAILS", f"{call}=900")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), make() as backend:
        for count in (2, 2, 3, 2, 3, 3, 2):
            np.testing.assert_array_equal(backend.infer(random_images(count)), answers(random_images(count)))
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"CUDA graphs are off, each kernel is launched by itself: {call} gave error 900"]


def test_a_network_that_cannot_be_recorded_runs_without(make: Callable[..., Any]) -> None:
    """TensorRT refuses during capture: the stream accepts work again, and every batch is run."""
    with make(slots=1) as backend:
        backend.infer(random_images(2))
        tensorrt_run.FAULTS["execute_async_v3 recorded"] = 1
        for _ in range(3):
            np.testing.assert_array_equal(backend.infer(random_images(2)), answers(random_images(2)))


def test_a_graph_that_fails_is_a_backend_error(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while a graph is launched reaches the caller, and the slot is free again."""
    with make(slots=1) as backend:
        for _ in range(3):
            backend.infer(random_images(2))
        monkeypatch.setenv("STUB_FAILS", "cuGraphLaunch=700")
        with pytest.raises(BackendError, match="cuGraphLaunch gave error 700"):
            backend.infer(random_images(2))
        monkeypatch.delenv("STUB_FAILS")
        np.testing.assert_array_equal(backend.infer(random_images(2, 5)), answers(random_images(2, 5)))


def split_of(count: int) -> dict[str, Any]:
    """The times that the stand-in's GPU takes for a batch of images of 192 bytes, with logits of five floats."""
    per_byte = pycuda_driver.KIB_MS / 1024
    return {
        "h2d": pytest.approx(count * 8 * 8 * 3 * per_byte),
        "compute": pytest.approx(count * tensorrt_run.IMAGE_MS),
        "d2h": pytest.approx(count * 5 * 4 * per_byte),
    }


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_gpu_times_each_part(make: Callable[..., Any], version: str, graphs: bool) -> None:
    """H2D, network and D2H on the GPU's clock, and the logits of infer; a graph takes the same times."""
    with make(version, graphs=graphs) as backend:
        for turn in range(4):
            for count in (1, 3, 4):
                logits, split = backend.infer_timed(random_images(count, turn))
                np.testing.assert_array_equal(logits, answers(random_images(count, turn)))
                assert split == split_of(count)
        recorded = {key for slot in backend._slots for key, graph in slot._graphs.items() if graph is not None}
        assert recorded == ({(count, "none") for count in (1, 3, 4)} if graphs else set())


def test_timed_and_untimed_batches_take_turns(make: Callable[..., Any]) -> None:
    """Each of the two kinds has its own graph: neither makes the copies of the other, whatever ran before."""
    with make(slots=1) as backend:
        for turn in range(5):
            np.testing.assert_array_equal(backend.infer(random_images(2, turn)), answers(random_images(2, turn)))
            logits, split = backend.infer_timed(random_images(2, 100 + turn))
            np.testing.assert_array_equal(logits, answers(random_images(2, 100 + turn)))
            assert split == split_of(2)


def test_a_large_batch_is_timed_piece_by_piece(make: Callable[..., Any]) -> None:
    """A batch larger than the engine's: the sum of the times of its pieces, in the order of the images."""
    with make() as backend:
        logits, split = backend.infer_timed(random_images(9))
    np.testing.assert_array_equal(logits, answers(random_images(9)))
    assert split == split_of(9)


def test_a_batch_that_is_filled_up_is_timed_whole(make: Callable[..., Any]) -> None:
    """An engine for batches of three and more computes three images, and that is the time."""
    with make(content=plan(min_batch=3)) as backend:
        logits, split = backend.infer_timed(random_images(2))
    np.testing.assert_array_equal(logits, answers(random_images(2)))
    assert split == split_of(3)


def test_mapped_memory_has_no_copies_to_time(make: Callable[..., Any]) -> None:
    """On an integrated GPU nothing is copied: the copies are absent, and not zero."""
    with make(integrated=True) as backend:
        logits, split = backend.infer_timed(random_images(2))
        np.testing.assert_array_equal(logits, answers(random_images(2)))
    assert split == {"compute": pytest.approx(2 * tensorrt_run.IMAGE_MS)}


@pytest.mark.parametrize("call", ["Event", "record", "time_till", "memcpy_htod_async", "memcpy_dtoh_async", "synchronize"])
def test_a_failure_while_timed_is_one_line_and_not_the_end(make: Callable[..., Any], call: str) -> None:
    """The slot is free again, and the next call returns logits and times."""
    with make(slots=1) as backend:
        pycuda_driver.FAULTS[call] = 1
        with pytest.raises(BackendError, match=f"while it ran the network: {said(call)}"):
            backend.infer_timed(random_images(2))
        for stream in pycuda_driver.STREAMS.values():
            stream.work.clear()
        for _ in range(3):
            logits, split = backend.infer_timed(random_images(2))
            np.testing.assert_array_equal(logits, answers(random_images(2)))
            assert split == split_of(2)


def test_wrong_images_and_a_closed_backend_are_not_timed(make: Callable[..., Any]) -> None:
    """The same errors as those of infer."""
    with make() as backend, pytest.raises(ConfigError):
        backend.infer_timed(np.zeros((1, 9, 8, 3), np.uint8))
    with pytest.raises(BackendError, match="closed"):
        backend.infer_timed(random_images(1))
