"""Which plan of TensorRT for RTX a machine needs and accepts. The library is real; plans are placeholders, since none is run."""

from __future__ import annotations

import importlib
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from edge_resnet.artifact.enginecache import FACTS, PLAN, EngineFacts, EngineTuning, engine_key, store_engine
from edge_resnet.artifact.folder import Artifact, open_artifact, write_json
from edge_resnet.core.errors import BackendError, ConfigError, IncompatibleEngineError, MissingDependencyError
from edge_resnet.device.rtxtargets import GROUPS
from edge_resnet.runtime import tensorrt_rtx as declaration
from edge_resnet.runtime.backend import EngineRequest, load_backend, open_backend, resolve_backend
from edge_resnet.runtime.tensorrt.plans import find_plan, read_plan
from edge_resnet.runtime.tensorrt.rtx import RtxLibrary

pytest.importorskip("tensorrt_rtx")
RTX = "tensorrt-rtx"


@pytest.fixture
def gpu(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives this machine a GPU of that compute capability, written without its point."""
    driver = importlib.import_module("edge_resnet.device.gpu")

    def become(capability: str) -> None:
        monkeypatch.setattr(driver.first_gpu, "__defaults__", (str(libcuda),))
        monkeypatch.setenv("STUB_CAPABILITY", capability)

    return become


@pytest.fixture
def artifact(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> Artifact:
    """A copy of the FP16 artifact."""
    return open_artifact(Path(shutil.copytree(tiny_artifacts["fp16"].folder, tmp_path / "artifact")))


def requested(artifact: Artifact, tuning: EngineTuning | None = None) -> tuple[EngineRequest, EngineFacts]:
    request = load_backend(RTX).engine_request(artifact, "native", tuning)
    assert request is not None
    assert request.facts is not None
    return request, request.facts


def stored(artifact: Artifact, facts: EngineFacts) -> Path:
    """The folder of an engine with those facts, and no plan worth the name."""

    def write(folder: Path) -> None:
        (folder / PLAN).write_bytes(b"plan")
        write_json(folder / FACTS, facts)

    return store_engine(artifact, engine_key(facts), facts.options.precision, write)


@pytest.mark.parametrize(
    ("capability", "group"),
    [("", "ampere+"), ("75", "turing"), ("80", "ampere+"), ("89", "ampere+"), ("120", "ampere+"), ("90", "ampere+")],
)
def test_the_targets_suit_the_machine(gpu: Callable[[str], None], artifact: Artifact, capability: str, group: str) -> None:
    """Without a GPU, and on one that runs no plan, the portable plan is compiled, for other machines."""
    if capability:
        gpu(capability)
    request, facts = requested(artifact)
    assert facts.options.tuning.targets == GROUPS[group]
    assert (facts.gpu, facts.compute_capability, facts.library) == ("", "", "tensorrt_rtx")
    assert request.key == engine_key(facts)


def test_the_key_says_what_it_is_for(artifact: Artifact) -> None:
    """Version, targets and precision are in the folder's name, and any of them makes another key."""
    version = importlib.import_module("tensorrt_rtx").__version__
    key, facts = requested(artifact)[0].key, requested(artifact)[1]
    assert key.startswith(f"tensorrt-rtx-{version}-sm80-86-89-120-fp16-")
    assert requested(artifact, EngineTuning(targets=("7.5",)))[0].key.startswith(f"tensorrt-rtx-{version}-sm75-fp16-")
    assert engine_key(replace(facts, library="tensorrt")) != key


def test_a_plan_serves_the_gpus_of_its_targets(
    gpu: Callable[[str], None], artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    """The portable one from Ampere on, one for 8.6 there alone; Turing is told what it was compiled for."""
    _, facts = requested(artifact)
    portable = stored(artifact, facts)
    for capability in ("80", "86", "89", "120"):
        gpu(capability)
        assert requested(artifact)[0].key == portable.name
        assert read_plan(artifact, "native", RtxLibrary()).content == b"plan"
    gpu("75")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), pytest.raises(IncompatibleEngineError) as caught:
        read_plan(artifact, "native", RtxLibrary())
    assert f"--backend {RTX}" in caught.value.hint
    assert "the target was 8.0, 8.6, 8.9, 12.0, is 7.5" in caplog.text
    shutil.rmtree(portable)
    narrow = stored(artifact, replace(facts, options=replace(facts.options, tuning=EngineTuning(targets=("8.6",)))))
    gpu("86")
    assert requested(artifact)[0].key == narrow.name
    gpu("89")
    assert requested(artifact)[0].key != narrow.name


def test_another_version_or_graph_is_another_plan(
    gpu: Callable[[str], None], artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is in the log."""
    gpu("89")
    key, facts = requested(artifact)[0].key, requested(artifact)[1]
    stored(artifact, replace(facts, tensorrt="1.4.0.76"))
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        assert requested(artifact)[0].key == key
    assert "TensorRT was 1.4.0.76, is" in caplog.text


def test_engines_of_other_backends_are_passed_over_in_silence(artifact: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    """Neither backend names the other's engines as refused."""
    _, facts = requested(artifact)
    native = replace(facts, library="tensorrt", tensorrt="10.3.0", gpu="NVIDIA RTX", compute_capability="8.9")
    stored(artifact, native)
    stored(artifact, facts)
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        assert find_plan(artifact, native) is not None
        assert find_plan(artifact, facts) is not None
        assert find_plan(artifact, replace(native, truth="b" * 64)) is None
    assert "tensorrt-rtx" not in caplog.text


def test_a_plan_cut_short_is_no_engine(gpu: Callable[[str], None], artifact: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    """Its hash differs: it is refused before the library sees it, which would not notice without a GPU."""
    gpu("89")
    folder = stored(artifact, requested(artifact)[1])
    (folder / PLAN).write_bytes(b"pla")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), pytest.raises(IncompatibleEngineError):
        read_plan(artifact, "native", RtxLibrary())
    assert "plan.engine was changed" in caplog.text


def test_int8_is_told_why_it_is_not_worth_it(tiny_artifacts: dict[str, Artifact]) -> None:
    """An INT8 artifact is computed in INT8, with a reason against it, on Turing another; FP16 and the reference have none."""
    request, facts = requested(tiny_artifacts["int8"])
    assert (request.form, facts.options.precision) == ("int8", "int8")
    assert "FP32" in request.caveat
    turing = requested(tiny_artifacts["int8"], EngineTuning(targets=("7.5",)))[0]
    assert "Turing" in turing.caveat
    for precision in ("fp32", "fp16"):
        assert requested(tiny_artifacts[precision])[0].caveat == ""
    reference = load_backend(RTX).engine_request(tiny_artifacts["int8"], "reference")
    assert reference is not None
    assert (reference.form, reference.caveat) == ("fp32", "")


@pytest.mark.parametrize(
    ("tuning", "option"),
    [
        (EngineTuning(level=5), "level"),
        (EngineTuning(version_compatible=True), "version-compatible"),
        (EngineTuning(hardware_compatible=True), "hardware-compatible"),
    ],
)
def test_options_that_change_nothing_are_refused(artifact: Artifact, tuning: EngineTuning, option: str) -> None:
    """The library takes them without an error, and builds the same plan."""
    with pytest.raises(ConfigError, match=f"no option {option}"):
        requested(artifact, tuning)


def test_targets_are_no_option_of_the_other_backends(artifact: Artifact, gpu: Callable[[str], None]) -> None:
    """TensorRT builds for the GPU at hand, the processors for themselves: the hints name the backend that has targets."""
    from edge_resnet.compiler.derive import compile_engine
    from edge_resnet.runtime.tensorrt.native import NativeLibrary

    tuning = EngineTuning(targets=("7.5",))
    with pytest.raises(ConfigError, match="only for the GPU of this machine") as caught:
        NativeLibrary().facts("a" * 64, replace(requested(artifact)[1].options, tuning=tuning))
    assert RTX in caught.value.hint
    with pytest.raises(ConfigError, match="target are options of TensorRT") as caught:
        compile_engine(artifact, "onnxruntime", tuning=tuning)
    assert RTX in caught.value.hint


def test_the_simulation_is_refused(artifact: Artifact) -> None:
    """ONNX Runtime runs it."""
    with pytest.raises(ConfigError, match="simulation"):
        load_backend(RTX).engine_request(artifact, "simulated")


def test_without_a_driver_it_compiles_and_does_not_open(artifact: Artifact) -> None:
    """The first line that says what is missing is about the driver, also where the artifact holds the engine."""
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a driver")
    stored(artifact, requested(artifact)[1])
    with pytest.raises(BackendError, match="no CUDA driver"):
        open_backend(artifact, RTX)


@pytest.mark.parametrize(
    ("capability", "taken"), [(each, each in {"75", "89", "120"}) for each in ("75", "89", "120", "87", "90", "110")]
)
def test_auto_takes_it_on_gpus_that_it_runs_on(
    gpu: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capability: str, taken: bool
) -> None:
    """Where TensorRT is not installed; TensorRT comes first where it is."""
    for name in ("pycuda", "tensorrt"):
        monkeypatch.setitem(sys.modules, name, None)
    gpu(capability)
    assert (resolve_backend("auto") == RTX) is taken
    for name in ("pycuda", "tensorrt"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, origin="stand-in")
        monkeypatch.setitem(sys.modules, name, module)
    assert resolve_backend("auto") == "tensorrt"


def test_auto_takes_no_gpu_that_is_not_there() -> None:
    """This machine has the library and, as a rule, no GPU."""
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a driver")
    assert resolve_backend("auto") in {"openvino", "onnxruntime"}


def test_aarch64_is_told_that_there_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra would install nothing there: the hint names the backend for Jetson instead."""
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(declaration.platform, "machine", lambda: "aarch64")
    with pytest.raises(MissingDependencyError, match="does not exist for aarch64") as caught:
        load_backend(RTX)
    assert "the backend tensorrt" in caught.value.hint
    assert "pip install" not in caught.value.hint


def test_without_the_library_there_is_one_line(artifact: Artifact) -> None:
    """Exit 1, what is missing and how to install it, also where the artifact holds an engine of it; no traceback."""
    stored(artifact, requested(artifact)[1])
    code = "import sys; sys.modules['tensorrt_rtx'] = None\nfrom edge_resnet.cli import main; main()"
    command = [sys.executable, "-c", code, "compile", str(artifact.folder), "--backend", RTX]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: backend tensorrt-rtx needs tensorrt-rtx-cu12",
        "hint: pip install 'edge-resnet[rtx]'",
    ]
