"""The conformance suite: the laws that every backend keeps. A table of backends is its argument.

A test class derives from ``Conformance`` and sets ``table``; each law then runs for each backend of that table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.runtime.backend import Backend, BackendTable, backend_info, load_backend, open_backend

__all__ = ["Conformance"]

Images = npt.NDArray[np.uint8]


def _images(count: int, seed: int = 0) -> Images:
    """Smooth images: even an untrained network gives them different logits."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=1).repeat(8, axis=2))


class Conformance:
    """The laws, for each backend of ``table`` whose packages are installed, on an FP32 and an INT8 artifact."""

    table: ClassVar[BackendTable]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A law that uses ``name`` runs for each backend."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", sorted(self.table), indirect=True)

    @pytest.fixture
    def name(self, request: pytest.FixtureRequest) -> str:
        """Each backend of the table whose packages are installed, and its GPU if it runs on one."""
        info = backend_info(request.param, self.table)
        for requirement in info.requirements:
            if not requirement.is_installed():
                pytest.skip(f"{requirement.package} is not installed")
        if info.processor == "GPU" and not info.suits():
            pytest.skip(f"no GPU that {request.param} runs on")
        return str(request.param)

    @pytest.fixture
    def artifact(self, name: str, tiny_copy: Artifact) -> Artifact:
        """The artifact, compiled for the backend."""
        compile_engine(tiny_copy, name, table=self.table)
        return tiny_copy

    @pytest.fixture
    def backend(self, name: str, artifact: Artifact) -> Iterator[Backend]:
        """The artifact, opened."""
        with open_backend(artifact, name, table=self.table) as opened:
            yield opened

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
    def test_logits_have_a_row_per_image(self, backend: Backend, count: int) -> None:
        """(N, H, W, 3) uint8 in, (N, classes) finite float32 out, for any N."""
        logits = backend.infer(_images(count))
        assert logits.shape == (count, backend.classes)
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()

    def test_a_batch_is_its_images(self, backend: Backend) -> None:
        """Each row equals the logits of its image alone, except for the order of sums."""
        images = _images(5)
        together = backend.infer(images)
        alone = np.concatenate([backend.infer(image[None]) for image in images])
        np.testing.assert_allclose(together, alone, atol=1e-4 * max(1.0, float(np.abs(alone).max())))
        assert (together.argmax(1) == alone.argmax(1)).all()

    def test_the_same_image_gets_the_same_answer(self, backend: Backend) -> None:
        """Inference is repeatable to the bit."""
        images = _images(3)
        assert np.array_equal(backend.infer(images), backend.infer(images))

    def test_different_images_get_different_answers(self, backend: Backend) -> None:
        """The input reaches the output."""
        logits = backend.infer(_images(6))
        assert len({row.tobytes() for row in logits}) == 6

    def test_results_belong_to_the_caller(self, backend: Backend) -> None:
        """A later call neither changes an earlier result nor is changed by writing into it."""
        first = backend.infer(_images(2, seed=1))
        kept = first.copy()
        second = backend.infer(_images(2, seed=2))
        assert np.array_equal(first, kept)
        again = second.copy()
        first[:] = 0
        assert np.array_equal(second, again)

    def test_the_input_is_left_alone(self, backend: Backend) -> None:
        """The caller's images are read, not written, and may be a view with strides."""
        images = _images(4)
        images.flags.writeable = False
        before = images.copy()
        every_second = backend.infer(images[::2])
        assert np.array_equal(images, before)
        assert np.array_equal(every_second, backend.infer(np.ascontiguousarray(images[::2])))

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: _images(1).astype(np.float32),
            lambda: _images(1)[0],
            lambda: _images(1)[:, :, :16],
            lambda: _images(1).transpose(0, 3, 1, 2),
            lambda: _images(1)[..., :1],
            lambda: _images(2)[:0],
        ],
    )
    def test_another_shape_or_dtype_is_refused(self, backend: Backend, wrong: Callable[[], npt.NDArray[np.generic]]) -> None:
        """A ConfigError names the shape that the network takes, and the backend still works."""
        with pytest.raises(ConfigError, match="32, 32, 3"):
            backend.infer(wrong())  # type: ignore[arg-type]
        assert backend.infer(_images(1)).shape == (1, backend.classes)

    def test_closed_is_closed(self, name: str, artifact: Artifact) -> None:
        """close may be called twice, after the context manager too; then infer is a BackendError."""
        with open_backend(artifact, name, table=self.table) as backend:
            backend.infer(_images(1))
            backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.infer(_images(1))

    def test_two_at_once(self, name: str, artifact: Artifact) -> None:
        """Two backends of one kind do not affect each other, whichever closes first."""
        images = _images(2)
        with open_backend(artifact, name, table=self.table) as first:
            with open_backend(artifact, name, table=self.table) as second:
                assert np.array_equal(first.infer(images), second.infer(images))
            assert first.infer(images).shape == (2, first.classes)

    def test_from_several_threads(self, backend: Backend) -> None:
        """Calls from four threads get the logits that one thread gets."""
        images = [_images(2, seed) for seed in range(12)]
        expected = [backend.infer(batch) for batch in images]
        with ThreadPoolExecutor(4) as pool:
            measured = list(pool.map(backend.infer, images))
        assert all(np.array_equal(left, right) for left, right in zip(expected, measured, strict=True))

    def test_it_says_what_it_is(self, backend: Backend, name: str) -> None:
        """Its name is that of the table, its number of classes that of the artifact."""
        assert backend.name == name
        assert backend.classes == 10

    def test_an_unknown_name_lists_the_known(self) -> None:
        """A name that is not in the table."""
        with pytest.raises(ConfigError, match="no backend is named abacus") as caught:
            load_backend("abacus", self.table)
        assert all(known in caught.value.hint for known in ("auto", *self.table))

    def test_it_requests_what_its_form_says(self, name: str, artifact: Artifact) -> None:
        """An engine for INT8 unless the backend runs the graph as it is; for FP32 only if it runs a plan."""
        kind = backend_info(name, self.table).form.kind
        needs_engine = kind == "plan" or (kind == "qdq" and artifact.manifest.precision == "int8")
        request = load_backend(name, self.table).engine_request(artifact, "native")
        assert (request is not None) is needs_engine

    def test_its_declaration_is_whole(self, name: str) -> None:
        """Each requirement names the command that installs it, and the declaration belongs to the class."""
        info = backend_info(name, self.table)
        assert all(requirement.remedy.startswith("pip install") for requirement in info.requirements)
        assert getattr(info.load(), "name", None) == name
