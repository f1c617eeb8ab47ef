"""The stages from a frame to its prediction: those that a backend reports, and no others."""

from __future__ import annotations

from itertools import chain, repeat

import numpy as np
import pytest
from scripted import HandClock, Scripted, Telling, TwoSlots

from edge_resnet.artifact.folder import Artifact
from edge_resnet.measurement.bench.stages import measure_stages

FRAME = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
STAGES = {"preprocess", "inference", "postprocess", "total"}


def test_stages_of_a_plain_backend(tiny_artifacts: dict[str, Artifact]) -> None:
    """Preprocess, inference and postprocess add up to the total; copies, which it does not report, are absent and not zero.

    The slow first round does not count.
    """
    clock = HandClock()
    backend = Scripted(clock, chain([500.0], repeat(8.0)))
    stages = measure_stages(backend, tiny_artifacts["fp32"], FRAME, 4, 0, clock)
    assert stages == {"preprocess": 0, "inference": 8, "postprocess": 0, "total": 8}
    assert len(backend.seen) == 5
    assert all(images.shape == (4, 32, 32, 3) for images in backend.seen)


def test_real_stages_take_time(tiny_artifacts: dict[str, Artifact]) -> None:
    """On a real clock every stage takes time, and the total is longer than preprocessing."""
    from edge_resnet.runtime.backend import open_backend

    with open_backend(tiny_artifacts["fp32"]) as network:
        stages = measure_stages(network, tiny_artifacts["fp32"], FRAME, 1, 0.05)
    assert set(stages) == STAGES
    assert all(milliseconds > 0 for milliseconds in stages.values())
    assert stages["total"] > stages["preprocess"]


def test_a_backend_that_reports_stages(tiny_artifacts: dict[str, Artifact]) -> None:
    """Its copies and its compute time are in the result."""
    clock = HandClock()
    stages = measure_stages(Telling(clock, repeat(2.0)), tiny_artifacts["fp32"], FRAME, 1, 0, clock)
    assert {name: stages[name] for name in ("h2d", "compute", "d2h")} == {"h2d": 0.25, "compute": 1.5, "d2h": 0.125}


@pytest.mark.parametrize("resizes", [True, False])
def test_a_backend_that_resizes(tiny_artifacts: dict[str, Artifact], resizes: bool) -> None:
    """If it preprocesses frames itself, the time from frames to logits is measured too."""
    clock = HandClock()
    backend = TwoSlots(clock, repeat(3.0))
    backend.resizes = resizes
    stages = measure_stages(backend, tiny_artifacts["fp32"], FRAME, 2, 0, clock)
    assert stages.get("frame_inference") == (3 if resizes else None)


def test_it_lasts_for_the_given_seconds(tiny_artifacts: dict[str, Artifact]) -> None:
    """Rounds continue until then."""
    clock = HandClock()
    backend = Scripted(clock, repeat(100.0))
    measure_stages(backend, tiny_artifacts["fp32"], FRAME, 1, 2.0, clock)
    assert clock.now == pytest.approx(2e9, rel=0.06)
