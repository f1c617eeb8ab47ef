"""A backend is checked as far as it goes: without its GPU, without a form, with one that mixes its answers up, and on a GPU."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from scripts import load_script

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.deployment.selftest import backend as module
from edge_resnet.deployment.selftest.backend import BackendChecks
from edge_resnet.deployment.selftest.check import Desk
from edge_resnet.deployment.selftest.golden import ARTIFACT
from edge_resnet.deployment.selftest.task import Task
from edge_resnet.runtime import backend as runtime
from edge_resnet.runtime.backend import BackendInfo, EngineForm, Requirement
from edge_resnet.runtime.fake import FakeBackend
from edge_resnet.runtime.onnxruntime import QDQ_FOR_CPU, OnnxRuntimeBackend

REPO = Path(__file__).resolve().parents[3]


class AheadOfTime(OnnxRuntimeBackend):
    """A backend for a GPU that compiles anywhere, as TensorRT for RTX does, and opens nothing."""

    @classmethod
    def open(cls, artifact: Any, variant: Any) -> NoReturn:
        """There is no GPU."""
        raise BackendError("cudaError 35", hint="edge-resnet doctor")


class Picky(AheadOfTime):
    """It offers no INT8."""

    @classmethod
    def engine_request(cls, artifact: Any, variant: Any, tuning: Any = None) -> Any:
        """INT8 is refused."""
        if artifact.manifest.precision == "int8":
            raise ConfigError("INT8 is slower than FP16 here")
        return super().engine_request(artifact, variant, tuning)


class FaultyBuilder(AheadOfTime):
    """Its builder fails, for a reason of its own."""

    @classmethod
    def engine_request(cls, artifact: Any, variant: Any, tuning: Any = None) -> NoReturn:
        """As a builder that cannot be made."""
        raise BackendError("cannot make its Builder", hint="edge-resnet doctor")


class FaultyGpuBuilder(OnnxRuntimeBackend):
    """It compiles with a GPU alone, as TensorRT does."""

    engine_request = FaultyBuilder.engine_request  # type: ignore[assignment]


def checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Any, *, processor: str = "GPU", no_gpu: str = "no driver"
) -> dict[str, tuple[str, str]]:
    """Status and detail by name of a backend of that class."""

    def gpu() -> None:
        if no_gpu:
            raise BackendError(no_gpu)

    form = QDQ_FOR_CPU if issubclass(backend, OnnxRuntimeBackend) else EngineForm("graph")
    ahead = issubclass(backend, AheadOfTime)
    info = BackendInfo(
        lambda: backend,
        (Requirement("numpy", "numpy"),),
        form,
        processor=processor,  # type: ignore[arg-type]
        refuse_machine=gpu,
        ahead=ahead,
    )
    for place in (module, runtime):
        monkeypatch.setattr(place, "backend_info", lambda name, table=None: info)
    told: list[dict[str, Any]] = []
    desk = Desk("own", lambda line: told.append(json.loads(line)), time.monotonic)
    (tmp_path / "own").mkdir()
    task = Task(
        "own",
        "onnxruntime" if form is QDQ_FOR_CPU else "own",
        str(tmp_path / "own"),
        str(tmp_path),
        str(ARTIFACT),
        golden=True,
        calls=10,
    )
    BackendChecks(task, desk).run()
    return {line["check"]["name"]: (line["check"]["status"], line["check"]["detail"]) for line in told if "check" in line}


def test_a_backend_without_its_gpu_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every precision is compiled, and its run is not here for the driver's reason, not failed for the library's."""
    found = checks(tmp_path, monkeypatch, AheadOfTime)
    for precision in ("fp32", "fp16", "int8"):
        assert found[f"{precision} compile"][0] == "ok"
        assert found[f"{precision} answers"] == ("not here", "no driver")
    assert found["engine kept"][0] == "ok"
    assert {status for status, _ in found.values()} == {"ok", "not here"}
    assert "speed" not in found


def test_a_faulty_builder_fails_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that compiles anywhere needs no GPU for that: what its builder says is a fault, and no lack of this machine."""
    found = checks(tmp_path, monkeypatch, FaultyBuilder)
    for precision in ("fp32", "fp16", "int8"):
        assert found[f"{precision} compile"] == ("failed", "cannot make its Builder (edge-resnet doctor)")


def test_a_builder_that_needs_a_gpu_is_not_asked_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled, and the reason is the driver's."""
    found = checks(tmp_path, monkeypatch, FaultyGpuBuilder)
    assert {found[f"{precision} compile"] for precision in ("fp32", "fp16", "int8")} == {("not here", "no driver")}


def test_with_a_gpu_the_same_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own reason, and the hint."""
    found = checks(tmp_path, monkeypatch, AheadOfTime, no_gpu="")
    assert found["fp16 answers"] == ("failed", "cudaError 35 (edge-resnet doctor)")


def test_a_form_that_a_backend_does_not_offer_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is the reason."""
    found = checks(tmp_path, monkeypatch, Picky)
    assert found["int8 compile"] == ("not here", "INT8 is slower than FP16 here")
    assert "int8 answers" not in found


def test_another_networks_answers_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake backend runs and is consistent: it fails by its answers alone."""
    found = checks(tmp_path, monkeypatch, FakeBackend, processor="CPU", no_gpu="")
    failed = {name for name, (status, _) in found.items() if status == "failed"}
    assert failed == {f"{precision} answers" for precision in ("fp32", "fp16", "int8")}
    assert "not the stored ones" in found["fp32 answers"][1]


def test_a_missing_package_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setattr(Requirement, "is_installed", lambda self: False)
    found = checks(tmp_path, monkeypatch, AheadOfTime)
    assert found == {"installed": ("not here", "numpy is not installed: pip install edge-resnet")}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "numbers"])
def test_a_gpu_is_checked_whole(tmp_path: Path, libcuda: Path, surfaces: Path, fault: str) -> None:
    """On stand-ins of TensorRT, PyCUDA and the driver: every check of a GPU is made, and an engine with wrong rows is found."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to stand in for nvcc")
    pretended = load_script(REPO / "tests" / "gpu" / "pretend.py")
    machine: Callable[..., dict[str, str]] = pretended.pretend
    command = [sys.executable, "-m", "edge_resnet", "selftest", "--json", str(tmp_path / "report.json")]
    environment = machine(tmp_path / "machine", libcuda, surfaces, fault=fault)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == (1 if fault else 0), done.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    found = {check["name"]: check for check in report["checks"] if check["group"] == "tensorrt"}
    for precision in ("fp32", "fp16", "int8"):
        assert {f"{precision} {check}" for check in ("compile", "layers", "answers", "batches", "graphs", "split")} <= set(found)
    assert {"threads", "frames", "memory", "engine kept", "engine refused", "speed"} <= set(found)
    assert "another GPU" in found["engine refused"]["detail"]
    assert found["int8 split"]["figures"].keys() == {"h2d_ms", "compute_ms", "d2h_ms", "call_ms"}
    failed = {name for name, check in found.items() if check["status"] == "failed"}
    wrong = {f"{precision} {check}" for precision in ("fp32", "fp16", "int8") for check in ("answers", "batches")}
    assert failed == (wrong if fault else set())
    assert all(re.search("labels", found[name]["detail"]) for name in failed if name.endswith("answers"))
