"""Keys of TensorRT engines: another machine or other options are another engine, and the reason is given."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from edge_resnet.artifact.enginecache import EngineFacts, EngineOptions, EngineTuning, engine_key, read_options, why_unfit
from edge_resnet.core.records import BatchProfile

FACTS = EngineFacts("10.3.0", "NVIDIA Orin", "8.7", "a" * 64, "weak", EngineOptions("int8", 224, BatchProfile(1, 4, 8)))
OTHERS: dict[str, Any] = {
    "tensorrt": "10.16.1",
    "gpu": "NVIDIA Thor",
    "compute_capability": "11.0",
    "truth": "b" * 64,
    "options": replace(FACTS.options, batch=BatchProfile(1, 4, 16)),
}
#: Of TensorRT for RTX, which knows targets and no GPU.
AIMED = replace(
    FACTS, tensorrt="1.7.1.116", gpu="", compute_capability="", dialect="strong", library="tensorrt_rtx",
    options=replace(FACTS.options, precision="fp16", tuning=EngineTuning(targets=("8.6", "8.9"))),
)  # fmt: skip


def aimed(*targets: str) -> EngineFacts:
    return replace(AIMED, options=replace(AIMED.options, tuning=EngineTuning(targets=targets)))


def test_the_key_of_an_engine_with_targets_can_be_read() -> None:
    """The library, its version and the targets take the place of the GPU, and tell it from TensorRT's own."""
    key = engine_key(AIMED)
    assert key.startswith("tensorrt-rtx-1.7.1.116-sm86-89-fp16-")
    assert len({engine_key(facts) for facts in (AIMED, aimed("8.6"), aimed("7.5"), replace(AIMED, library="tensorrt"))}) == 4


@pytest.mark.parametrize(
    ("needed", "reason"),
    [
        (("8.6",), None),
        (("8.6", "8.9"), None),
        (("7.5",), "the target was 8.6, 8.9, is 7.5"),
        (("8.0", "8.6"), "the target was 8.6, 8.9, is 8.0, 8.6"),
    ],
)
def test_an_engine_fits_where_its_targets_hold_all_that_are_needed(needed: tuple[str, ...], reason: str | None) -> None:
    """The GPU of this machine is one target; a plan that is passed on needs all of its group."""
    assert why_unfit(AIMED, aimed(*needed)) == reason


def test_targets_survive_json() -> None:
    """The record is read back as it was written: JSON has lists, and a key is made of facts."""
    assert read_options(json.loads(json.dumps(asdict(AIMED.options)))) == AIMED.options


def test_the_key_can_be_read() -> None:
    """TensorRT, compute capability, GPU and precision are in the folder's name, which is a plain file name."""
    key = engine_key(FACTS)
    assert key.startswith("tensorrt-10.3.0-sm87-nvidia-orin-int8-")
    assert key == engine_key(replace(FACTS))
    assert engine_key(replace(FACTS, gpu="../../etc/ evil")).count("/") == 0


@pytest.mark.parametrize("name", OTHERS)
def test_any_difference_is_another_key_and_is_named(name: str) -> None:
    """Each fact alone changes the key, and the reason names it with both values."""
    other = replace(FACTS, **{name: OTHERS[name]})
    assert engine_key(other) != engine_key(FACTS)
    reason = why_unfit(FACTS, other)
    assert reason is not None
    assert reason.count(" was ") == 1
    if name == "options":
        assert "1,4,16" in reason
    else:
        assert str(OTHERS[name])[:12] in reason


def test_the_same_facts_are_no_difference() -> None:
    """There is no reason."""
    assert why_unfit(FACTS, replace(FACTS)) is None


@pytest.mark.parametrize("tuning", [EngineTuning(512), EngineTuning(level=5), EngineTuning(version_compatible=True)])
def test_how_it_was_built_is_another_key_and_fits(tuning: EngineTuning) -> None:
    """Workspace and level change the key of an engine, not what it computes: each fits where the other was requested."""
    tuned = replace(FACTS, options=replace(FACTS.options, tuning=tuning))
    assert engine_key(tuned) != engine_key(FACTS)
    assert why_unfit(tuned, FACTS) is None
    assert why_unfit(FACTS, tuned) is None


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [
        ("10.3.0", "10.16.1", True),
        ("10.3.0", "10.3.0.30", True),
        ("10.9.0", "10.13.0", True),
        ("10.16.1", "10.3.0", False),
        ("8.6.1", "10.3.0", False),
        ("10.16.1", "11.4.0", False),
    ],
)
def test_a_version_compatible_engine_meets_later_minor_versions(built: str, here: str, fits: bool) -> None:
    """Forward, within a major version; compared as numbers, not as text."""
    options = replace(FACTS.options, tuning=EngineTuning(version_compatible=True))
    found = replace(FACTS, tensorrt=built, options=options)
    assert (why_unfit(found, replace(FACTS, tensorrt=here)) is None) is fits
    assert (why_unfit(replace(FACTS, tensorrt=built), replace(FACTS, tensorrt=here)) is None) is (built == here)


@pytest.mark.parametrize(
    ("built", "here", "fits"), [("8.0", "8.9", True), ("8.6", "12.0", True), ("9.0", "8.0", True), ("8.6", "7.5", False)]
)
def test_a_hardware_compatible_engine_meets_gpus_from_ampere_on(built: str, here: str, fits: bool) -> None:
    """Another GPU and compute capability, both from 8.0 on; neither without the option."""
    options = replace(FACTS.options, tuning=EngineTuning(hardware_compatible=True))
    other = replace(FACTS, gpu="NVIDIA Other", compute_capability=here)
    assert (why_unfit(replace(FACTS, compute_capability=built, options=options), other) is None) is fits
    assert why_unfit(replace(FACTS, compute_capability=built), other) is not None
