"""Hundreds of thousands of frames through the loop: every frame accounted for, nothing grows."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import load_script

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/pipeline.py"


@pytest.mark.slow
@pytest.mark.parametrize("frames", [600, 2_000, 8_000, 200_000])
def test_nothing_grows(frames: int) -> None:
    """A camera far too fast for the network: read = predicted + dropped; memory, threads and open files do not grow."""
    module = load_script(SCRIPT)
    found = module.soak(frames)
    assert found["read"] >= frames
    assert found["good"], found
