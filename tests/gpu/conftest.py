"""What the tests on a GPU share: the GPU itself, artifacts, engines built once, real images, and the figures told in the end.

Runs without the fixtures of the other tests, which need torch. Settings, all from the environment:
EDGE_RESNET_GPU_ARTIFACTS: a folder with resnet18-int8 and resnet50-int8, FP32 and FP16 being derived from their graphs; without
it they are built here, with torch and real weights. EDGE_RESNET_GPU_WORK: a folder that keeps engines for the next run.
EDGE_RESNET_TEST_DATA: the real data. EDGE_RESNET_GPU_INFERENCES: how many the test of endurance makes, 10,000 without it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.artifact.precision import with_precision
from edge_resnet.core.errors import BackendError
from edge_resnet.core.records import BatchProfile, Precision
from edge_resnet.device.gpu import Gpu, first_gpu
from edge_resnet.images.imageset import ImageSet, batches, open_images
from edge_resnet.runtime.tensorrt.cuda import CUDA

REPO = Path(__file__).resolve().parents[2]
NETWORKS = ("resnet18", "resnet50")
WEIGHTS = {"resnet18": "resnet18_small_blocks_bnstats.safetensors", "resnet50": "resnet50_large_blocks_bnstats.safetensors"}
#: The profile of every engine here: small enough for any GPU; larger batches run in pieces.
PROFILE = BatchProfile(1, 8, 32)
#: Lines that the tests measured, printed at the end of the run.
FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers in case pyproject.toml is not read and pytest-timeout is not installed."""
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU")
    config.addinivalue_line("markers", "timeout(seconds): of pytest-timeout")
    config.stash[FIGURES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``network`` runs for each."""
    if "network" in metafunc.fixturenames:
        metafunc.parametrize("network", NETWORKS)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was measured, to judge the limits by."""
    if config.stash[FIGURES]:
        terminalreporter.section("measured")
        for figure in config.stash[FIGURES]:
            terminalreporter.write_line(figure)


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Adds a line to the figures."""
    return pytestconfig.stash[FIGURES].append


@pytest.fixture(scope="session", autouse=True)
def gpu() -> Gpu:
    """The GPU; every test is skipped, with a reason, if the driver, TensorRT, or PyCUDA and cuda.core are missing."""
    try:
        found = first_gpu()
    except BackendError as error:
        pytest.skip(str(error))
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed")
    if not CUDA.is_installed():
        pytest.skip("neither pycuda nor cuda-core is installed")
    return found


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout, or the one that EDGE_RESNET_TEST_DATA names."""
    folder = Path(os.environ.get("EDGE_RESNET_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data is not here ({folder}); set EDGE_RESNET_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def sample(real_data: Path) -> ImageSet:
    """The labelled images of ImageNet."""
    return open_images(real_data / "imagenet/sample500.csv")


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for artifacts and their engines."""
    named = os.environ.get("EDGE_RESNET_GPU_WORK")
    folder = Path(named) if named else tmp_path_factory.mktemp("work")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def artifact(work: Path, request: pytest.FixtureRequest) -> Callable[[str, Precision], Artifact]:
    """Returns the artifact of a network and a precision, with PROFILE; the folder is shared, do not modify."""

    def found(network: str, precision: Precision) -> Artifact:
        given = os.environ.get("EDGE_RESNET_GPU_ARTIFACTS")
        source = (Path(given) if given else work) / f"{network}-int8"
        if not given and not source.exists():
            _build(network, request.getfixturevalue("real_data"), source)
        name = f"{network}-{precision}-{PROFILE.min}-{PROFILE.opt}-{PROFILE.max}"
        return with_precision(open_artifact(source), precision, PROFILE, work / name)

    return found


def _build(network: str, data: Path, folder: Path) -> None:
    pytest.importorskip("torch", reason="no torch to build artifacts with: set EDGE_RESNET_GPU_ARTIFACTS", exc_type=ImportError)
    from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
    from edge_resnet.pipelines.build import BuildOptions, build

    weights = data / "weights/imagenet" / WEIGHTS[network]
    if not weights.is_file():
        pytest.skip(f"no weights {weights}")
    options = BuildOptions(
        model=ModelSpec(depth=int(network.removeprefix("resnet"))),
        preprocess=Preprocess(),
        precision="int8",
        weights=str(weights),
        output=folder,
        calibration_data=str(data / "imagenet/sample500.csv"),
        recipe=QuantRecipe(images=128),
        backend="onnxruntime",
    )
    build(options)


@pytest.fixture(scope="session")
def compiled(artifact: Callable[[str, Precision], Artifact]) -> Callable[[str, Precision], Artifact]:
    """The same with its TensorRT engine for this GPU, built if missing."""
    from edge_resnet.compiler.derive import compile_engine

    def found(network: str, precision: Precision) -> Artifact:
        made = artifact(network, precision)
        compile_engine(made, "tensorrt")
        return made

    return found


@pytest.fixture
def opened(compiled: Callable[[str, Precision], Artifact]) -> Iterator[Callable[..., Any]]:
    """Opens the engine of a network and a precision, with the backend's own options; closed after the test."""
    from edge_resnet.runtime.tensorrt.inference import TensorRtBackend
    from edge_resnet.runtime.tensorrt.plans import read_plan

    with ExitStack() as stack:
        yield lambda network, precision, **how: stack.enter_context(
            TensorRtBackend(read_plan(compiled(network, precision), "native"), **how)
        )


@pytest.fixture(scope="session")
def pixels(sample: ImageSet, artifact: Callable[[str, Precision], Artifact]) -> Callable[[str, int], Any]:
    """Returns that many preprocessed real images, (N, H, W, 3) uint8, spread over the set; beyond its size they repeat."""
    cache: dict[str, Any] = {}

    def found(network: str, count: int) -> Any:
        if network not in cache:
            spec = artifact(network, "fp32").manifest.preprocess
            chosen = sample.subset(range(0, len(sample), max(1, len(sample) // 128)))
            cache[network] = np.concatenate([batch.images for batch in batches(chosen, spec, 32)])
        return cache[network][np.arange(count) % len(cache[network])].copy()

    return found
