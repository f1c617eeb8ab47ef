"""library.py: how each TensorRT learns a tensor's precision."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from edge_resnet.core.errors import BackendError
from edge_resnet.runtime.tensorrt.library import typing_of, version_of


@pytest.mark.parametrize(
    ("version", "dialect"),
    [("8.6.1", "weak"), ("10.3.0", "weak"), ("10.13.3.9", "strong"), ("10.16.1.11", "strong"), ("11.4.0.106", "strong")],
)
def test_strong_from_10_12_on(tensorrt_of: Callable[[str], ModuleType], version: str, dialect: str) -> None:
    """Weak typing with flags up to 10.11, strong typing from 10.12 on."""
    module = tensorrt_of(version)
    assert typing_of(module) == dialect
    assert version_of(module)[:2] == tuple(map(int, version.split(".")[:2]))


def test_an_old_tensorrt_is_refused(tensorrt_of: Callable[[str], ModuleType]) -> None:
    """TensorRT 8.5 of JetPack 5 lacks optimization level and version compatibility: the error names the JetPack needed."""
    with pytest.raises(BackendError, match="too old") as caught:
        typing_of(tensorrt_of("8.5.2.2"))
    assert "JetPack 6" in caught.value.hint


def test_a_package_without_a_version_is_refused() -> None:
    """A folder named tensorrt on the path is not TensorRT."""
    with pytest.raises(BackendError, match="has no version"):
        version_of(ModuleType("tensorrt"))
