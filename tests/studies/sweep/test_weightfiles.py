"""The weights of a depth are found by name, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_resnet.core.errors import WeightsError
from edge_resnet.studies.sweep.plan import find_weights


@pytest.mark.parametrize("name", ["resnet18.pth", "my_ResNet-18_v2.safetensors", "resnet18_small_blocks.pt", "RESNET_18.th"])
def test_a_name_that_contains_the_depth_is_found(tmp_path: Path, name: str) -> None:
    """In any spelling; other depths, other kinds of files and longer numbers do not match."""
    for other in (name, "resnet180.pth", "resnet1018.pth", "resnet50.pth", "resnet18.txt", "18.pth"):
        (tmp_path / other).touch()
    assert find_weights(tmp_path, 18) == tmp_path / name


def test_no_file_is_none(tmp_path: Path) -> None:
    """A depth without weights is not an error."""
    (tmp_path / "resnet50.pth").touch()
    assert find_weights(tmp_path, 34) is None


def test_two_files_are_refused_and_named(tmp_path: Path) -> None:
    """The error has both names."""
    for name in ("resnet18.pth", "resnet18-a1.pth"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=r"resnet18-a1\.pth, resnet18\.pth"):
        find_weights(tmp_path, 18)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """A path that does not exist."""
    with pytest.raises(WeightsError, match="not a folder"):
        find_weights(tmp_path / "none", 18)
