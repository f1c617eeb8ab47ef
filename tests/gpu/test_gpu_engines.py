"""Engines of a real TensorRT: kept, refused, built faster the second time, built for other machines, and their layers listed."""

from __future__ import annotations

import ctypes
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.compiler.derive import compile_engine
from edge_resnet.core.errors import BuildError, ConfigError, IncompatibleEngineError
from edge_resnet.core.records import Precision
from edge_resnet.device.gpu import Gpu
from edge_resnet.measurement.layers import read_layers
from edge_resnet.runtime.backend import open_backend

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800), pytest.mark.filterwarnings("default::DeprecationWarning")]


@pytest.fixture
def copied(compiled: Callable[[str, Precision], Artifact], tmp_path: Path) -> Callable[..., Artifact]:
    """Returns a copy of ResNet-18 in FP16 that a test may damage, with its engine or without."""

    def found(*, engines: bool = True) -> Artifact:
        source = compiled("resnet18", "fp16").folder
        folder = shutil.copytree(source, tmp_path / f"copy-{engines}", ignore=None if engines else _engines)
        return open_artifact(Path(folder))

    return found


def _engines(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "engines"]


def test_an_engine_is_built_once(copied: Callable[..., Artifact]) -> None:
    """A second compile of the same source on the same machine does not change the plan."""
    made = copied()
    folder = compile_engine(made, "tensorrt")
    assert folder is not None
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert compile_engine(made, "tensorrt") == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    assert [path.name for path in folder.parent.glob("tensorrt-*")] == [folder.name]


@pytest.mark.parametrize(
    ("fact", "value"), [("tensorrt", "7.0.0.11"), ("gpu", "NVIDIA Other"), ("compute_capability", "3.5"), ("truth", "0" * 64)]
)
def test_a_plan_of_another_machine_is_refused(
    copied: Callable[..., Artifact], caplog: pytest.LogCaptureFixture, fact: str, value: str
) -> None:
    """Its facts say so, and TensorRT never reads it; the hint names the command that builds one."""
    made = copied()
    folder = compile_engine(made, "tensorrt")
    assert folder is not None
    facts = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    (folder / "engine.json").write_text(json.dumps({**facts, fact: value}), encoding="utf-8")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), pytest.raises(IncompatibleEngineError) as caught:
        open_backend(made, "tensorrt")
    assert "compile" in caught.value.hint
    assert "is not used" in caplog.text


def test_a_changed_byte_is_refused(copied: Callable[..., Artifact], caplog: pytest.LogCaptureFixture) -> None:
    """Anywhere in the plan, before TensorRT reads it."""
    made = copied()
    folder = compile_engine(made, "tensorrt")
    assert folder is not None
    plan = bytearray((folder / "plan.engine").read_bytes())
    plan[len(plan) // 2] ^= 1
    (folder / "plan.engine").write_bytes(plan)
    with caplog.at_level(logging.WARNING, logger="edge_resnet"), pytest.raises(IncompatibleEngineError):
        open_backend(made, "tensorrt")
    assert "its files were changed" in caplog.text


def test_a_second_build_uses_what_the_first_measured(
    copied: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]
) -> None:
    """The first build writes the timing cache, and the second keeps all of it. The speed-up is reported."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = copied(engines=False)
    seconds, sizes = [], []
    for _ in range(2):
        started = time.monotonic()
        folder = compile_engine(made, "tensorrt")
        seconds.append(time.monotonic() - started)
        assert folder is not None
        shutil.rmtree(folder)
        (file,) = (tmp_path / "cache" / "edge-resnet" / "tensorrt").glob("*.timings")
        sizes.append(file.stat().st_size)
    tell(f"resnet18 fp16 built in {seconds[0]:.1f} s, with the timing cache ({sizes[0]} bytes) in {seconds[1]:.1f} s")
    assert sizes[0] > 0
    assert sizes[1] >= sizes[0]


@pytest.mark.parametrize("kind", ["version_compatible", "hardware_compatible"])
def test_engines_for_other_machines_run_here_too(
    copied: Callable[..., Artifact],
    pixels: Callable[[str, int], Any],
    gpu: Gpu,
    tell: Callable[[str], None],
    kind: str,
) -> None:
    """If TensorRT offers such builds, their engine opens and computes the same, except for rounding."""
    if kind == "hardware_compatible" and float(gpu.compute_capability) < 8:
        pytest.skip("hardware-compatible engines need a GPU from Ampere on")
    images = pixels("resnet18", 16)
    made = copied()
    with open_backend(made, "tensorrt") as plain:
        wanted = plain.infer(images)
    try:
        folder = compile_engine(made, "tensorrt", tuning=EngineTuning(**{kind: True}))
    except ConfigError as error:
        pytest.skip(str(error))
    except BuildError as error:
        if kind == "version_compatible" and not _has_lean_runtime():
            pytest.skip(f"TensorRT came without its lean runtime, which such an engine carries: {error}")
        if gpu.integrated:
            pytest.skip(f"not offered on this board: {error}")
        raise
    assert folder is not None
    with open_backend(made, "tensorrt") as backend:
        assert backend._runtime.engine_host_code_allowed is (kind == "version_compatible")  # type: ignore[attr-defined]
        found = backend.infer(images)
    sizes = [path.stat().st_size for path in sorted(folder.parent.glob("tensorrt-*/plan.engine"))]
    spread = float((wanted - wanted.mean(axis=1, keepdims=True)).std())
    off = float(np.sqrt(np.mean((found - wanted) ** 2))) / spread
    tell(f"resnet18 fp16 {kind}: off by rms {100 * off:.3f} % of the spread; plans of {sizes} bytes")
    assert off <= 0.015


def _has_lean_runtime() -> bool:
    import tensorrt

    try:
        ctypes.CDLL(f"libnvinfer_lean.so.{tensorrt.__version__.split('.')[0]}")
    except OSError:
        return False
    return True


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_inspectors_listing_is_read(
    compiled: Callable[[str, Precision], Artifact], tell: Callable[[str], None], network: str, precision: Precision
) -> None:
    """Every layer has a kind and types; in INT8, most convolutions compute in INT8."""
    folder = compile_engine(compiled(network, precision), "tensorrt")
    assert folder is not None
    listing = read_layers(folder / "layers.json")
    multiplying = [layer.precision for layer in listing.layers if layer.multiplies]
    kinds = {kind: multiplying.count(kind) for kind in sorted(set(multiplying))}
    moves = sum(layer.moves for layer in listing.layers)
    adds = [layer.adds for layer in listing.layers if layer.adds]
    tell(
        f"{network} {precision}: {len(listing.layers)} layers, convolutions and products {kinds}, {moves} that only move, "
        f"{adds.count('fused')} sums fused, {adds.count('alone')} alone"
    )
    assert listing.detailed
    assert {"images", "logits"} <= set(listing.tensors)
    assert multiplying
    if precision == "int8":
        assert kinds.get("INT8", 0) > len(multiplying) / 2
