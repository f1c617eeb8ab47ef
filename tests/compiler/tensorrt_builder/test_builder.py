"""builder.py on strict stand-ins of five versions: which calls each gets, and which error every failure becomes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from exported import exported, small
from standins.tensorrt_build import CALLS, FAULTS

from edge_resnet.artifact.enginecache import EngineOptions, EngineTuning
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.builder import build_plan
from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.core.records import BatchProfile, Precision, Progress
from edge_resnet.runtime.tensorrt.library import typing_of

OPTIONS = EngineOptions("int8", 16, BatchProfile(1, 4, 8))
OUT_OF_MEMORY = "[defaultAllocator.cpp] Requested amount of GPU memory could not be allocated: out of memory."


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The file of a network."""
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(small()))
    return path


def built(
    trt: ModuleType,
    model: Path,
    options: EngineOptions = OPTIONS,
    *,
    timings: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How the stand-in was how to build."""
    plan = build_plan(PlanRequest(model, options, typing_of(trt), timings), progress)
    how: dict[str, Any] = json.loads(plan.content)
    return how


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_precision_is_set_as_the_version_needs_it(trt: ModuleType, model: Path, precision: Precision) -> None:
    """Below 10.12 by flags for a weakly typed network, from 10.12 on by the graph alone."""
    how = built(trt, model, EngineOptions(precision, 16, BatchProfile()))
    flags = trt.NetworkDefinitionCreationFlag
    strong = tuple(map(int, trt.__version__.split(".")[:2])) >= (10, 12)
    assert how["flags"] == ([] if strong or precision == "fp32" else ["FP16"] if precision == "fp16" else ["FP16", "INT8"])
    assert bool(hasattr(flags, "STRONGLY_TYPED") and how["network_flags"] >> flags.STRONGLY_TYPED & 1) is strong
    if hasattr(flags, "EXPLICIT_BATCH"):
        assert how["network_flags"] >> flags.EXPLICIT_BATCH & 1


def test_the_profile_holds_the_batches(trt: ModuleType, model: Path) -> None:
    """Minimum, optimum and maximum batch of the input, detailed layer names, and TensorRT's default workspace and level."""
    how = built(trt, model)
    assert how["profile"] == {"images": [[1, 16, 16, 3], [4, 16, 16, 3], [8, 16, 16, 3]]}
    assert (how["verbosity"], how["level"], how["pools"]) == ("DETAILED", 3, {})
    assert how["graph"] == model.stat().st_size


def test_options_reach_the_builder(trt: ModuleType, model: Path) -> None:
    """Workspace in bytes, level, compatibility with later versions and with other GPUs."""
    options = EngineOptions("fp16", 16, BatchProfile(), EngineTuning(256, 5, version_compatible=True, hardware_compatible=True))
    how = built(trt, model, options)
    assert how["pools"] == {"WORKSPACE": 256 << 20}
    assert how["level"] == 5
    assert "VERSION_COMPATIBLE" in how["flags"]
    assert how["hardware"] == "AMPERE_PLUS"


def test_the_timing_cache_is_read_and_written(trt: ModuleType, model: Path, tmp_path: Path) -> None:
    """The second build starts from the cache of the first; a missing folder is made."""
    timings = tmp_path / "deep" / "gpu.timings"
    built(trt, model, timings=timings)
    assert timings.read_bytes() == b"+"
    built(trt, model, timings=timings)
    assert timings.read_bytes() == b"++"
    assert [path.name for path in timings.parent.iterdir()] == ["gpu.timings"]


def test_progress_counts_nested_phases(trt: ModuleType, model: Path) -> None:
    """From TensorRT 10 on the build is reported in percent, to its end; 8.6 reports nothing."""
    steps: list[tuple[str, int, int]] = []
    built(trt, model, progress=lambda *step: steps.append(step))
    expected = [("build engine", percent, 100) for percent in (0, 8, 16, 25, 33, 66, 100)]
    assert steps == (expected if hasattr(trt, "IProgressMonitor") else [])


def test_layers_are_inspected(trt: ModuleType, model: Path) -> None:
    """The inspector's JSON is returned with the plan; if there is none, the plan is returned without it."""
    assert "Bindings" in (build_plan(PlanRequest(model, OPTIONS, typing_of(trt))).layers or "")
    assert CALLS[-1] == ("inspect", (4, 16, 16, 3)), "an open batch has no formats until a shape is set"
    for call in ("deserialize_cuda_engine", "create_engine_inspector"):
        FAULTS[call] = ["none"]
        assert build_plan(PlanRequest(model, OPTIONS, typing_of(trt))).layers is None


@pytest.mark.parametrize(
    "call",
    [
        "create_network",
        "create_builder_config",
        "create_optimization_profile",
        "build_serialized_network",
    ],
)
def test_none_is_an_error_with_tensorrts_error_lines(trt: ModuleType, model: Path, call: str) -> None:
    """Whichever call returns None, the error has the last error line, and the build is not retried."""
    FAULTS[call] = ["the GPU is on fire"]
    with pytest.raises(BuildError, match="on fire") as caught:
        built(trt, model)
    assert caught.value.hint
    assert len(CALLS) == (call == "build_serialized_network")


@pytest.mark.parametrize("call", ["create_timing_cache", "serialize", "add_optimization_profile"])
def test_silent_failures_are_errors_too(trt: ModuleType, model: Path, tmp_path: Path, call: str) -> None:
    """None, or a negative index, with nothing in the log."""
    FAULTS[call] = ["none"]
    with pytest.raises(BuildError, match="no reason was logged"):
        built(trt, model, timings=tmp_path / "t")


def test_what_the_parser_refuses_is_named(trt: ModuleType, model: Path) -> None:
    """The node by its name if this TensorRT has it, else by its number."""
    FAULTS["parse"] = ["none"]
    with pytest.raises(BuildError, match="an operator is not supported") as caught:
        built(trt, model)
    named = hasattr(trt.ParserError, "node_name")
    assert ("Conv layer1.0.conv1" if named else "node 7") in caught.value.message


def test_out_of_memory_shrinks_the_workspace(trt: ModuleType, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Out of memory twice: a workspace of 1 GiB, then of 512 MiB, each logged; the plan has the one it was built with."""
    FAULTS["build_serialized_network"] = [OUT_OF_MEMORY, OUT_OF_MEMORY]
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        plan = build_plan(PlanRequest(model, OPTIONS, typing_of(trt)))
    assert [how["pools"].get("WORKSPACE", 0) >> 20 for call, how in CALLS if call == "build"] == [0, 1024, 512]
    assert plan.workspace_mib == 512
    assert "with a workspace of 512 MiB" in caplog.text


def test_memory_that_is_only_warned_of_shrinks_the_workspace(trt: ModuleType, model: Path) -> None:
    """As TensorRT 10.3 says it on a Jetson: tactics are skipped with warnings, then none is left for a layer."""
    skipped = "WARNING Tactic Device request: 143MB Available: 112MB. Device memory is insufficient to use tactic."
    FAULTS["build_serialized_network"] = [f"{skipped}\nERROR Could not find any implementation for node conv1 + relu."]
    assert build_plan(PlanRequest(model, OPTIONS, typing_of(trt))).workspace_mib == 1024
    FAULTS["build_serialized_network"] = ["ERROR Could not find any implementation for node conv1 + relu."]
    with pytest.raises(BuildError, match="built no engine"):
        built(trt, model)
    FAULTS["build_serialized_network"] = [f"{skipped}\nERROR Could not find any implementation for node conv1."] * 9
    with pytest.raises(BuildError, match="ran out of memory: Tactic Device request: 143MB") as caught:
        built(trt, model)
    assert "a smaller batch" in caught.value.hint


def test_the_workspace_has_an_end(trt: ModuleType, model: Path) -> None:
    """Out of memory at 64 MiB is an error that says what to lower."""
    FAULTS["build_serialized_network"] = [OUT_OF_MEMORY] * 9
    with pytest.raises(BuildError, match="ran out of memory") as caught:
        built(trt, model, EngineOptions("fp16", 16, BatchProfile(), EngineTuning(256)))
    assert "a smaller batch" in caught.value.hint
    assert [how["pools"]["WORKSPACE"] >> 20 for call, how in CALLS if call == "build"] == [256, 128, 64]


def test_tensorrts_lines_reach_logging(trt: ModuleType, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Verbose lines at debug, errors at error."""
    FAULTS["build_serialized_network"] = ["no kernel fits"]
    with caplog.at_level(logging.DEBUG, logger="edge_resnet"), pytest.raises(BuildError):
        built(trt, model)
    levels = {record.getMessage(): record.levelno for record in caplog.records}
    assert levels["TensorRT: tactics were timed"] == logging.DEBUG
    assert levels["TensorRT: no kernel fits"] == logging.ERROR


def test_unsupported_typing_is_refused(trt: ModuleType, model: Path) -> None:
    """Strong typing below 10 and weak typing from 11 on are ConfigErrors, not failures."""
    flags = trt.NetworkDefinitionCreationFlag
    if not hasattr(flags, "STRONGLY_TYPED"):
        with pytest.raises(ConfigError, match="no strong typing"):
            build_plan(PlanRequest(model, OPTIONS, "strong"))
    if not hasattr(trt.BuilderFlag, "FP16"):
        with pytest.raises(ConfigError, match="no weak typing"):
            build_plan(PlanRequest(model, OPTIONS, "weak"))


def test_nothing_is_built_without_a_driver(trt: ModuleType, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT's classes would crash the interpreter: none is constructed before the driver has found a GPU."""
    from edge_resnet.core.errors import BackendError

    monkeypatch.setenv("STUB_FAILS", "cuInit=35")
    monkeypatch.setattr(trt.Builder, "__init__", lambda self, logger: pytest.fail("TensorRT was touched"))
    with pytest.raises(BackendError, match="error 35"):
        built(trt, model)
