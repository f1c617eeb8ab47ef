"""The package's backends keep the laws of the conformance suite; a new line of the table is tested by being there."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conformance import Conformance

from edge_resnet.core.errors import MissingDependencyError
from edge_resnet.runtime.backend import BACKENDS, auto_order, backend_info, load_backend, resolve_backend


class TestThePackagesBackends(Conformance):
    """Each backend of the package's own table."""

    table = BACKENDS


def test_auto_is_installed() -> None:
    """`auto` resolves to a backend of the table that runs networks."""
    assert resolve_backend("auto") in set(BACKENDS) - {"fake"}
    assert resolve_backend("fake") == "fake"


def test_auto_prefers_the_fastest() -> None:
    """The order that `auto` tries, and the one backend that simulates TensorRT."""
    assert auto_order() == ["tensorrt", "tensorrt-rtx", "openvino", "onnxruntime"]
    assert [name for name in BACKENDS if backend_info(name).simulates] == ["onnxruntime"]


def test_a_missing_library_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend whose library cannot be imported says what installs it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError) as caught:
        load_backend("onnxruntime")
    assert caught.value.hint.startswith("pip install")


def test_reading_every_declaration_loads_no_library() -> None:
    """What the backends declare is readable where none of their libraries is installed."""
    code = (
        "import sys\n"
        "for name in ('onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx', 'pycuda', 'cuda'): sys.modules[name] = None\n"
        "from edge_resnet.runtime.backend import BACKENDS, backend_info\n"
        "print(*[backend_info(name).form.kind for name in sorted(BACKENDS)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "graph qdq qdq plan plan\n"), done.stderr
