"""cudagraph.py on a C stand-in of the driver, which counts graphs and refuses what CUDA refuses."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_resnet.core.errors import BackendError
from edge_resnet.runtime.tensorrt.cudagraph import Recorder

STREAM = 0x7F00_0000_1000  # above 32 bits: a truncated handle would name another stream


def left(libcuda: Path) -> tuple[int, int]:
    """Graphs and executable graphs that were not freed."""
    stub = ctypes.CDLL(str(libcuda))
    return int(stub.stub_graphs()), int(stub.stub_executables())


@pytest.fixture
def launched(libcuda: Path) -> Iterator[list[tuple[int, int]]]:
    """Stream and number of every graph that is launched while the test runs."""
    calls: list[tuple[int, int]] = []
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long)
    hook = kind(lambda stream, number: calls.append((stream, number)))
    stub = ctypes.CDLL(str(libcuda))
    stub.stub_hooks(None, None, hook)
    yield calls
    stub.stub_hooks(None, None, None)


def test_recorded_work_is_launched_as_often_as_wanted(libcuda: Path, launched: list[tuple[int, int]]) -> None:
    """The work is called once, while it is captured; each graph is launched by its own number, and freed once."""
    recorder, calls = Recorder(str(libcuda)), []
    graphs = [recorder.record(STREAM, lambda: calls.append("work")) for _ in range(2)]
    assert calls == ["work"] * 2
    assert left(libcuda) == (0, 2)
    first, second = graphs
    assert first is not None
    assert second is not None
    for graph in (first, second, first):
        graph.launch(STREAM)
    assert [stream for stream, _ in launched] == [STREAM] * 3
    numbers = [number for _, number in launched]
    assert numbers[0] == numbers[2] == numbers[1] - 1
    for graph in (first, second):
        graph.free()
        graph.free()
    assert left(libcuda) == (0, 0)
    with pytest.raises(BackendError, match="cuGraphLaunch gave error 1"):
        first.launch(STREAM)


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_each_failing_call_ends_recording(
    libcuda: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    """None is returned, nothing is left, the reason is logged once, and capturing is not tried again."""
    monkeypatch.setenv("STUB_FAILS", f"{call}=901")
    recorder, calls = Recorder(str(libcuda)), []
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        assert recorder.record(STREAM, lambda: calls.append(1)) is None
        monkeypatch.delenv("STUB_FAILS")
        assert recorder.record(STREAM, lambda: calls.append(2)) is None
    assert 2 not in calls
    assert [record.getMessage().endswith(f"{call} gave error 901") for record in caplog.records] == [True]
    assert left(libcuda) == (0, 0)
    assert Recorder(str(libcuda)).record(STREAM, lambda: None).free() is None  # type: ignore[union-attr]


def test_work_that_raises_leaves_the_stream_usable(libcuda: Path) -> None:
    """What was captured so far is freed, and the stream is out of capture mode."""

    def fail() -> None:
        raise RuntimeError("a layer on the DLA")

    recorder = Recorder(str(libcuda))
    assert recorder.record(STREAM, fail) is None
    assert left(libcuda) == (0, 0)
    graph = Recorder(str(libcuda)).record(STREAM, lambda: None)
    assert graph is not None
    graph.free()


def test_ctrl_c_while_recording_is_not_swallowed(libcuda: Path) -> None:
    """It ends the program, with the stream out of capture mode."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    recorder = Recorder(str(libcuda))
    with pytest.raises(KeyboardInterrupt):
        recorder.record(STREAM, interrupt)
    assert left(libcuda) == (0, 0)
    graph = recorder.record(STREAM, lambda: None)
    assert graph is not None
    graph.free()


def test_the_default_stream_is_not_recorded(libcuda: Path) -> None:
    """CUDA refuses to capture it: the work is run without a graph."""
    assert Recorder(str(libcuda)).record(0, lambda: None) is None


@pytest.mark.parametrize("library", ["libcuda-that-is-not-there.so.1", "libc.so.6"])
def test_a_driver_without_graphs_is_no_error(library: str, caplog: pytest.LogCaptureFixture) -> None:
    """A driver that is missing, or too old for graphs: logged once, and the caller runs its work without a graph."""
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        recorder = Recorder(library)
    assert not recorder.works
    assert recorder.record(STREAM, lambda: None) is None
    assert len(caplog.records) == 1
