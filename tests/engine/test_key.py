"""key.py: another machine or another wish is another engine, and why is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_resnet.engine.key import EngineFacts, engine_key, why_different
from edge_resnet.engine.options import EngineOptions
from edge_resnet.spec import BatchProfile

FACTS = EngineFacts("10.3.0", "NVIDIA Orin", "8.7", "a" * 64, "weak", EngineOptions("int8", 224, BatchProfile(1, 4, 8)))
OTHERS: dict[str, Any] = {
    "tensorrt": "10.16.1",
    "gpu": "NVIDIA Thor",
    "compute_capability": "11.0",
    "truth": "b" * 64,
    "dialect": "strong",
    "options": replace(FACTS.options, batch=BatchProfile(1, 4, 16)),
}


def test_the_key_can_be_read() -> None:
    """TensorRT, compute capability, GPU and precision stand in the folder's name, which is a plain file name."""
    key = engine_key(FACTS)
    assert key.startswith("tensorrt-10.3.0-sm87-nvidia-orin-int8-")
    assert key == engine_key(replace(FACTS))
    assert engine_key(replace(FACTS, gpu="../../etc/ evil")).count("/") == 0


@pytest.mark.parametrize("name", OTHERS)
def test_any_difference_is_another_key_and_is_said(name: str) -> None:
    """Each fact alone changes the key, and the reason names it with both values."""
    other = replace(FACTS, **{name: OTHERS[name]})
    assert engine_key(other) != engine_key(FACTS)
    reason = why_different(FACTS, other)
    assert reason is not None
    assert reason.count(" was ") == 1
    if name == "options":
        assert '"max": 16' in reason
    else:
        assert str(OTHERS[name])[:12] in reason


def test_the_same_facts_are_no_difference() -> None:
    """Nothing to say."""
    assert why_different(FACTS, replace(FACTS)) is None
