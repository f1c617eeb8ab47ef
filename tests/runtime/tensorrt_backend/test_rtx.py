"""TensorRT for RTX at work: the surface is that of the installed library, its runtime and the GPU are stand-ins."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from standins import tensorrt_run
from standins.surface import like
from standins.tensorrt_run import COMPILED, JIT_CLASSES, JUDGEMENT, answers, plan

from edge_resnet.core.errors import BackendError, EdgeResnetError, IncompatibleEngineError
from edge_resnet.runtime.tensorrt.rtx import RtxLibrary

Make = Callable[..., Any]


def random_images(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the runtime caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edge-resnet" / "runtime"


@pytest.fixture
def rtx(make: Make, caches: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a backend of TensorRT for RTX."""
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", like(pytest.importorskip("tensorrt_rtx"), JIT_CLASSES))
    COMPILED.clear()
    JUDGEMENT.clear()
    monkeypatch.setattr(tensorrt_run, "ENVIRONMENT", {"driver": "580"})
    return lambda **how: make(library=RtxLibrary(), **how)


def test_it_answers_under_its_own_name(rtx: Make) -> None:
    """Batches of any size, in any order, get their own logits."""
    with rtx() as backend:
        assert backend.name == "tensorrt-rtx"
        for count in (1, 4, 3, 9, 1, 13):
            np.testing.assert_array_equal(backend.infer(random_images(count)), answers(random_images(count)))


@pytest.mark.parametrize("graphs", [True, False])
def test_cuda_graphs_are_the_librarys(rtx: Make, graphs: bool) -> None:
    """The library captures the network, or nobody does: a second capture around it would fail."""
    with rtx(graphs=graphs) as backend:
        for _ in range(4):
            np.testing.assert_array_equal(backend.infer(random_images(2)), answers(random_images(2)))
        assert backend._contexts._config.cuda_graph_strategy.name == ("WHOLE_GRAPH_CAPTURE" if graphs else "DISABLED")
        assert all(not slot._graphs for slot in backend._slots)


def test_kernels_are_compiled_once_and_kept(rtx: Make, caches: Path) -> None:
    """A batch size is compiled at its first run, for both slots; the next process compiles none of them."""
    with rtx() as backend:
        backend.infer(random_images(2))
        (first,) = caches.iterdir()
        assert b"[2]" in first.read_bytes(), "a process that is killed now has lost nothing"
        for _ in range(3):
            backend.infer(random_images(2))
            backend.infer(random_images(4))
    assert COMPILED == [2, 4]
    with rtx() as backend:
        backend.infer(random_images(4))
        backend.infer(random_images(3))
    assert COMPILED == [2, 4, 3]
    assert [path.name for path in caches.iterdir()] == ["plan-nvidia-stand-in-8.7.cache"]


def test_caches_of_engines_that_are_gone_do_not_pile_up(rtx: Make, caches: Path) -> None:
    """A new one is written, and those that were not used for longest are removed."""
    caches.mkdir(parents=True)
    for number in range(40):
        (caches / f"{number}.cache").touch()
    with rtx() as backend:
        backend.infer(random_images(2))
    assert len(list(caches.iterdir())) == 32
    assert (caches / "plan-nvidia-stand-in-8.7.cache").is_file()


def test_nothing_is_written_where_nothing_was_compiled(rtx: Make, caches: Path) -> None:
    """Neither by a backend that runs nothing, nor by one that finds every kernel in the cache."""
    rtx().close()
    assert not caches.exists()
    with rtx() as backend:
        backend.infer(random_images(1))
    (path,) = caches.iterdir()
    written = path.stat().st_ino
    with rtx() as backend:
        backend.infer(random_images(1))
    assert path.stat().st_ino == written


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"driver": "570", "kernels": [1, 2]}'])
def test_another_environments_cache_is_compiled_again(rtx: Make, caches: Path, content: bytes) -> None:
    """A damaged cache, or one of another driver, costs the time of a compilation, and is replaced."""
    caches.mkdir(parents=True)
    path = caches / "plan-nvidia-stand-in-8.7.cache"
    path.write_bytes(content)
    with rtx() as backend:
        np.testing.assert_array_equal(backend.infer(random_images(2)), answers(random_images(2)))
    assert COMPILED == [2]
    assert path.read_bytes() == b'{"driver": "580", "kernels": [2]}'


def test_a_cache_folder_that_cannot_be_written(
    rtx: Make, caches: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, once; the logits are right. A folder whose name is taken refuses root as well."""
    caches.parent.mkdir(parents=True)
    caches.touch()
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), rtx() as backend:
        for count in (1, 2, 3):
            np.testing.assert_array_equal(backend.infer(random_images(count)), answers(random_images(count)))
    told = [record.message for record in caplog.records if "cache" in record.message]
    assert told == [f"the runtime cache {caches}/plan-nvidia-stand-in-8.7.cache cannot be written: File exists"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_cache_folder(rtx: Make, caches: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line, once, and the logits are right."""
    caches.mkdir(parents=True)
    caches.chmod(0o500)
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), rtx() as backend:
        np.testing.assert_array_equal(backend.infer(random_images(2)), answers(random_images(2)))
    assert caplog.text.count("cannot be written: Permission denied") == 1


@pytest.mark.parametrize("call", ["create_runtime_cache", "set_runtime_cache", "serialize"])
def test_without_a_runtime_cache_it_still_runs(rtx: Make, caches: Path, call: str) -> None:
    """Where the library makes none or returns None, every start compiles again."""
    tensorrt_run.FAULTS[call] = 9
    with rtx() as backend:
        np.testing.assert_array_equal(backend.infer(random_images(2)), answers(random_images(2)))
    assert not caches.exists()


@pytest.mark.parametrize(
    ("reason", "kind", "words"),
    [
        ("MALFORMED_ENGINE", IncompatibleEngineError, "damaged"),
        ("VERSION_MISMATCH", IncompatibleEngineError, "another version"),
        ("UNSUPPORTED_CC", IncompatibleEngineError, "other GPUs"),
        ("OLD_CUDA_DRIVER", BackendError, "driver is too old"),
        ("OLD_CUDA_RUNTIME", BackendError, "CUDA libraries are too old"),
        ("INSUFFICIENT_GPU_MEMORY", BackendError, "not enough memory"),
        ("CUDA_ERROR", BackendError, "CUDA does not work"),
    ],
)
def test_each_reason_of_a_refusal_is_an_error(rtx: Make, reason: str, kind: type[EdgeResnetError], words: str) -> None:
    """Every member of the real enumeration, told before the plan is read; nothing stays on the GPU."""
    JUDGEMENT.append(("INVALID", (reason,)))
    with pytest.raises(kind, match=words) as caught:
        rtx()
    assert type(caught.value) is kind
    assert caught.value.hint


def test_the_reasons_are_all_there_are() -> None:
    """A new version of the library with another reason makes this fail."""
    trt = pytest.importorskip("tensorrt_rtx")
    from edge_resnet.runtime.tensorrt.rtx import _REASONS

    assert {name for name, *_ in _REASONS} == set(trt.EngineInvalidityDiagnostics.__members__)


def test_a_refusal_without_a_reason_is_an_error(rtx: Make) -> None:
    """What the real library says where it cannot ask the driver."""
    JUDGEMENT.append(("INVALID", ()))
    with pytest.raises(BackendError, match="cannot ask the GPU"):
        rtx()


def test_a_slower_plan_runs_with_a_warning(rtx: Make, caplog: pytest.LogCaptureFixture) -> None:
    """SUBOPTIMAL is not a refusal."""
    JUDGEMENT.append(("SUBOPTIMAL", ()))
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), rtx() as backend:
        np.testing.assert_array_equal(backend.infer(random_images(1)), answers(random_images(1)))
    assert "slower on this GPU" in caplog.text


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 5000, plan()[:-9]])
def test_what_is_no_plan_is_refused(rtx: Make, content: bytes) -> None:
    """Foreign bytes and a plan cut short: an error with the command that compiles again."""
    with pytest.raises(IncompatibleEngineError) as caught:
        rtx(content=content)
    assert caught.value.hint == "edge-resnet compile ARTIFACT --backend tensorrt-rtx"


@pytest.mark.parametrize("call", ["create_runtime_config", "create_execution_context", "deserialize_cuda_engine"])
def test_none_is_an_error(rtx: Make, call: str) -> None:
    """While opening; nothing stays on the GPU."""
    tensorrt_run.FAULTS[call] = 1
    with pytest.raises(EdgeResnetError):
        rtx()


def test_a_failure_does_not_keep_a_cache(rtx: Make, caches: Path) -> None:
    """A batch that failed before anything ran leaves no file, and the next batch is answered."""
    with rtx() as backend:
        tensorrt_run.FAULTS["execute_async_v3"] = 1
        with pytest.raises(BackendError, match="did not run"):
            backend.infer(random_images(2))
        assert not caches.exists()
        np.testing.assert_array_equal(backend.infer(random_images(2)), answers(random_images(2)))
    assert caches.exists()


def test_the_real_library_refuses_foreign_bytes() -> None:
    """It answers as its stand-in does, also without a driver."""
    trt = pytest.importorskip("tensorrt_rtx")
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    with pytest.raises(IncompatibleEngineError, match="damaged, or another library wrote it"):
        RtxLibrary().check(trt, runtime, b"x" * 5000)
