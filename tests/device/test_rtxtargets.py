"""The GPUs that TensorRT for RTX compiles for: names of groups, lists of compute capabilities, and what suits a GPU."""

from __future__ import annotations

import pytest

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.device.gpu import Gpu
from edge_resnet.device.rtxtargets import GROUPS, is_known_gpu, parse_targets, refuse_gpu, targets_for


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("ampere+", ("8.0", "8.6", "8.9", "12.0")),
        ("Turing", ("7.5",)),
        ("7.5", ("7.5",)),
        (" 8.9, 8.6,8.9 ", ("8.6", "8.9")),
        ("12.1", ("12.1",)),
    ],
)
def test_a_group_or_capabilities(text: str, targets: tuple[str, ...]) -> None:
    """Names in any case; capabilities in any order, each once: the same set has the same key."""
    assert parse_targets(text) == targets


@pytest.mark.parametrize("text", ["pascal", "", "9.0", "8.7", "sm_86", "8.6,", "8.6;8.9", "8,6", "ampere+,turing", "12.00"])
def test_unknown_targets_are_listed(text: str) -> None:
    """Hopper, Jetson and misspellings: the hint names every group and every compute capability that there is."""
    with pytest.raises(ConfigError, match="does not compile for the target") as caught:
        parse_targets(text)
    assert all(known in caught.value.hint for known in (*GROUPS, "7.5", "8.0", "8.6", "8.9", "12.0", "12.1"))


def test_turing_has_a_plan_of_its_own() -> None:
    """Together with later GPUs it is refused, with what to do instead."""
    with pytest.raises(ConfigError, match="for Turing and later GPUs") as caught:
        parse_targets("7.5,8.6")
    assert "once for each" in caught.value.hint


@pytest.mark.parametrize(
    ("capability", "name"),
    [("7.5", "turing"), ("8.0", "ampere+"), ("8.9", "ampere+"), ("12.0", "ampere+"), ("", "ampere+"), ("9.0", "ampere+")],
)
def test_the_plan_that_suits_a_gpu(capability: str, name: str) -> None:
    """That of its group; the portable one without a GPU, and where the GPU cannot run any."""
    assert targets_for(capability) == GROUPS[name]


def test_gb10_has_a_plan_of_its_own() -> None:
    """It is in no group."""
    assert targets_for("12.1") == ("12.1",)


@pytest.mark.parametrize("capability", ["5.3", "7.0", "7.2", "8.7", "9.0", "10.0", "11.0", "13.0"])
def test_other_gpus_are_refused(capability: str) -> None:
    """Jetson, Volta, Hopper, data-centre Blackwell and what is not known yet: the error names the GPU and the backend for it."""
    assert not is_known_gpu(capability)
    with pytest.raises(BackendError, match=rf"does not run on NVIDIA X, compute capability {capability}") as caught:
        refuse_gpu(Gpu("NVIDIA X", capability, False))
    assert "the backend tensorrt" in caught.value.hint


def test_the_library_knows_every_target() -> None:
    """The real enumeration has a member for each compute capability that is offered, and none that is left out."""
    trt = pytest.importorskip("tensorrt_rtx")
    offered = {f"SM{part.replace('.', '')}" for part in (*GROUPS["ampere+"], *GROUPS["turing"], "12.1")}
    assert offered == set(trt.ComputeCapability.__members__) - {"NONE", "CURRENT"}
