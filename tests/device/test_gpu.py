"""gpu.py with a C stand-in for the driver, and on a machine without a driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_resnet.core.errors import BackendError
from edge_resnet.device.gpu import Gpu, first_gpu


def test_the_first_gpu_is_described(libcuda: Path) -> None:
    """Name, compute capability and kind of memory are those that the driver reports."""
    assert first_gpu(str(libcuda)) == Gpu("NVIDIA Stand-in", "8.7", True)


def test_without_a_driver_there_is_one_line() -> None:
    """A missing library is an error of ours, not a crash or a ctypes traceback."""
    with pytest.raises(BackendError, match="no CUDA driver") as caught:
        first_gpu("libcuda-that-is-not-there.so.1")
    assert "onnxruntime" in caught.value.hint


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cuInit=100", "finds no GPU"),
        ("cuInit=803", "does not start: cuInit gave error 803"),
        ("cuDeviceGet=101", "finds no GPU"),
        ("cuDeviceGetName=1", "cuDeviceGetName gave error 1"),
        ("cuDeviceGetAttribute=1", "cuDeviceGetAttribute gave error 1"),
    ],
)
def test_every_call_may_fail(libcuda: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str) -> None:
    """Each failure is a BackendError that names what failed, with a hint."""
    monkeypatch.setenv("STUB_FAILS", fault)
    with pytest.raises(BackendError, match=words) as caught:
        first_gpu(str(libcuda))
    assert "doctor" in caught.value.hint
