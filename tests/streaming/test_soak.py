"""Hundreds of thousands of frames through the loop: every frame accounted for, nothing grows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/pipeline.py"


@pytest.mark.slow
@pytest.mark.parametrize("frames", [600, 2_000, 8_000, 200_000])
def test_nothing_grows(frames: int) -> None:
    """A camera far too fast for the network: read = predicted + dropped; memory, threads and open files do not grow."""
    spec = importlib.util.spec_from_file_location("benchmark_pipeline", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.soak(frames)
    assert found["read"] >= frames
    assert found["good"], found
