"""A backend is one file and one line: this file defines one in plain NumPy, and the conformance suite runs on a table with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import numpy as np
import pytest
from conformance import Conformance

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import MODEL, Artifact, open_artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import ConfigError, MissingDependencyError
from edge_resnet.runtime.backend import (
    BACKENDS,
    BackendInfo,
    BackendTable,
    EngineForm,
    EngineRequest,
    Images,
    Logits,
    Requirement,
    Variant,
    backend_info,
    check_images,
    cpu_graph,
    cpu_int8_request,
    load_backend,
    open_backend,
    refuse_tuning,
    resolve_backend,
)

FORM = EngineForm("qdq", family="plain", version=7)


class PlainBackend:
    """Logits by a projection of the pixels, whose weights are drawn with the bytes of the loaded graph as the seed."""

    name = "plain"

    def __init__(self, graph: Path, classes: int, input_size: int) -> None:
        seed = int.from_bytes(hashlib.sha256(graph.read_bytes()).digest()[:4], "big")
        rng = np.random.default_rng(seed)
        self._weights = rng.standard_normal((input_size * input_size * 3, classes))
        self._input_size = input_size
        self._closed = False
        self.classes = classes

    @classmethod
    def engine_request(cls, artifact: Artifact, variant: Variant, tuning: EngineTuning | None = None) -> EngineRequest | None:
        """INT8 is derived with Q/DQ pairs, float graphs are run as they are."""
        refuse_tuning(tuning)
        if variant == "reference" or artifact.manifest.precision != "int8":
            return None
        return cpu_int8_request(artifact, FORM)

    @classmethod
    def open(cls, artifact: Artifact, variant: Variant) -> PlainBackend:
        """Open the graph of that variant."""
        spec = artifact.manifest.model
        return cls(cpu_graph(artifact, cls.engine_request(artifact, variant)), spec.classes, spec.input_size)

    def infer(self, images: Images) -> Logits:
        """(N, H, W, 3) uint8 RGB → logits (N, classes) float32."""
        check_images(images, self._input_size, closed=self._closed)
        rows = [image.reshape(-1).astype(np.float64) @ self._weights / 255 for image in images]
        return np.stack(rows).astype(np.float32)

    def close(self) -> None:
        """Refuse further calls."""
        self._closed = True

    def __enter__(self) -> PlainBackend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


BACKEND = BackendInfo(load=lambda: PlainBackend, requirements=(Requirement("numpy", "numpy"),), form=FORM, auto_rank=0)
#: The one line, in a table that is not the package's.
TABLE = {"plain": __name__, **BACKENDS}


class TestPlainBackend(Conformance):
    """The laws, for the backend that this file defines."""

    table: ClassVar[BackendTable] = {"plain": __name__}


def test_compile_derives_by_the_kind_of_form(tiny_int8: Path) -> None:
    """The compiler does not know the backend: the engine's key has the declared family and version, and its graph is opened."""
    artifact = open_artifact(tiny_int8)
    own, packages = (compile_engine(artifact, name, table=TABLE) for name in ("plain", "onnxruntime"))
    assert own is not None
    assert packages is not None
    assert own.name.startswith("plain-u8s")
    assert "-v7-" in own.name
    assert (own / MODEL).read_bytes() == (packages / MODEL).read_bytes()
    images = np.zeros((1, 32, 32, 3), np.uint8) + np.uint8(9)
    with open_backend(artifact, "plain", table=TABLE) as int8, open_backend(artifact, "plain", "reference", table=TABLE) as fp32:
        assert not np.array_equal(int8.infer(images), fp32.infer(images))


def test_auto_chooses_it_by_its_rank() -> None:
    """Declared as faster than every other, it is what `auto` opens; the package's own table does not have it."""
    assert resolve_backend("auto", table=TABLE) == "plain"
    assert resolve_backend("auto") != "plain"
    with pytest.raises(ConfigError, match="no backend is named plain"):
        backend_info("plain")


def test_nothing_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no package of any backend is there, the error says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="no backend is installed") as caught:
        resolve_backend("auto")
    assert caught.value.hint == "pip install edge-resnet"


def test_the_table_is_an_argument_of_loading() -> None:
    """The class comes from the table that is given."""
    assert load_backend("plain", TABLE) is PlainBackend
