"""Which plugins GStreamer would find, from its folders and the variables that name others."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_resnet.device.gstreamer import has_plugin


def _plant(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"libgst{name}.so").touch()
    return folder


@pytest.mark.parametrize(
    "folder", ["usr/lib/aarch64-linux-gnu/gstreamer-1.0", "usr/lib64/gstreamer-1.0", "usr/local/lib/x/gstreamer-1.0"]
)
def test_the_folders_of_distributions(tmp_path: Path, folder: str) -> None:
    """A plugin is found where a distribution installs it, by its whole name."""
    _plant(tmp_path / folder, "nvvidconv")
    assert has_plugin("nvvidconv", tmp_path, {})
    assert not has_plugin("nvvid", tmp_path, {})
    assert not has_plugin("rtsp", tmp_path, {})


def test_the_variables(tmp_path: Path) -> None:
    """GST_PLUGIN_PATH adds folders, searched below, too; GST_PLUGIN_SYSTEM_PATH replaces the distribution's; 1_0 goes first."""
    own, other = _plant(tmp_path / "own/below", "one").parent, _plant(tmp_path / "other", "two")
    _plant(tmp_path / "usr/lib/x/gstreamer-1.0", "three")
    both = {"GST_PLUGIN_PATH": f"{own}:{other}"}
    assert all(has_plugin(name, tmp_path, both) for name in ("one", "two", "three"))
    assert not has_plugin("one", tmp_path, both | {"GST_PLUGIN_PATH_1_0": str(other)})
    system = {"GST_PLUGIN_SYSTEM_PATH": str(other)}
    assert has_plugin("two", tmp_path, system)
    assert not has_plugin("three", tmp_path, system)
    assert has_plugin("three", tmp_path, {"GST_PLUGIN_SYSTEM_PATH": ""})
