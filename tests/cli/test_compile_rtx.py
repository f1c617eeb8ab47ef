"""``compile --backend tensorrt-rtx`` with NVIDIA's real builder, and what the other commands do where there is no GPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import assert_refused

from edge_resnet.artifact.enginecache import PLAN
from edge_resnet.artifact.folder import Artifact

pytest.importorskip("tensorrt_rtx")
Cli = Callable[..., Any]
RTX = ("--backend", "tensorrt-rtx")


@pytest.fixture
def copy(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of the artifact of a precision, without engines."""
    ignored = shutil.ignore_patterns("engines")
    return lambda name: Path(shutil.copytree(tiny_artifacts[name].folder, tmp_path / name, ignore=ignored))


def engines(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("engines/*"))


def test_an_engine_without_a_gpu(cli: Cli, copy: Callable[[str], Path]) -> None:
    """Compiled once, kept, and built again if it was cut short; its layers are listed with the GPUs that it is for."""
    folder = copy("fp16")
    outcome = cli("compile", str(folder), *RTX)
    assert (outcome.code, outcome.err) == (0, "")
    (key,) = engines(folder)
    assert outcome.out == f"engine: {folder}/engines/{key}\n"
    assert "-sm80-86-89-120-fp16-" in key
    plan = folder / "engines" / key / PLAN
    whole, stamp = plan.read_bytes(), plan.stat().st_mtime_ns
    assert cli("compile", str(folder), *RTX).out == outcome.out
    assert plan.stat().st_mtime_ns == stamp
    plan.write_bytes(whole[: len(whole) // 2])
    again = cli("compile", str(folder), *RTX, "--json")
    assert json.loads(again.out)["engines"] == [f"{folder}/engines/{key}"]
    assert "plan.engine was changed" in again.err
    assert plan.read_bytes() == whole, "the same graph gives the same plan"
    listing = cli("inspect", str(folder), "--layers").out
    assert "layers, compute capability 8.0, 8.6, 8.9, 12.0" in listing
    assert json.loads(cli("inspect", str(folder), "--layers", "--json").out)["engine_layers"]["layers"]


def test_turing_gets_its_own(cli: Cli, copy: Callable[[str], Path]) -> None:
    """By name or by compute capability, which is the same engine."""
    folder = copy("fp16")
    for target in ("turing", "7.5"):
        assert cli("compile", str(folder), *RTX, "--target", target).code == 0
    (key,) = engines(folder)
    assert "-sm75-fp16-" in key


def test_int8_comes_with_its_reason(cli: Cli, copy: Callable[[str], Path]) -> None:
    """One warning, and an engine that computes in INT8: never one of another precision."""
    folder = copy("int8")
    outcome = cli("compile", str(folder), *RTX)
    assert outcome.code == 0, outcome.err
    assert [line for line in outcome.err.splitlines() if "INT8 on TensorRT for RTX" in line] != []
    assert outcome.err.count("INT8 on TensorRT for RTX") == 1
    layers = json.loads(cli("inspect", str(folder), "--layers", "--json").out)["engine_layers"]["layers"]
    assert any("INT8" in layer["precision"] for layer in layers)
    assert "INT8 on TensorRT for RTX" not in cli("compile", str(folder), *RTX).err, "nothing is derived"


@pytest.mark.parametrize("target", ["pascal", "9.0", "7.5,8.6", ""])
def test_an_unknown_target_is_refused(cli: Cli, copy: Callable[[str], Path], target: str) -> None:
    """Exit 2, and nothing is built."""
    folder = copy("fp16")
    assert_refused(cli("compile", str(folder), *RTX, "--target", target), "hint")
    assert engines(folder) == []


@pytest.mark.parametrize("option", [("--level", "5"), ("--version-compatible",), ("--hardware-compatible",)])
def test_options_that_it_ignores_are_refused(cli: Cli, copy: Callable[[str], Path], option: tuple[str, ...]) -> None:
    """Exit 2, with the option's name."""
    assert_refused(cli("compile", str(copy("fp16")), *RTX, *option), option[0].strip("-"))


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_a_target_needs_the_backend(cli: Cli, copy: Callable[[str], Path], backend: str) -> None:
    """The hint names it."""
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU")
    assert_refused(cli("compile", str(copy("fp16")), "--backend", backend, "--target", "turing"), "tensorrt-rtx")


@pytest.mark.parametrize(
    "command", [("run", "--source", "synthetic://", "--frames", "1", "--headless"), ("bench",)], ids=lambda words: words[0]
)
def test_what_needs_a_gpu_says_so_and_compiles_nothing(cli: Cli, copy: Callable[[str], Path], command: tuple[str, ...]) -> None:
    """Exit 1 with one line about the driver, before seconds are spent on an engine that nobody could run."""
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU")
    folder = copy("fp16")
    assert_refused(cli(command[0], str(folder), *command[1:], *RTX), "no CUDA driver", code=1)
    assert engines(folder) == []
