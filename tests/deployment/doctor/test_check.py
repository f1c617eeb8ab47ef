"""check.py: how packages are found without importing them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_resnet.deployment.doctor.check import is_importable, is_installed_by_apt, system_site_command


def test_a_folder_is_not_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named pycuda does not count as PyCUDA, a module does, and neither is imported."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "tensorrt.py").write_text("raise SystemExit('must not be imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_importable("pycuda")
    assert is_importable("tensorrt")


def test_a_module_that_python_refuses_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A None among the loaded modules, or a module without a spec, is no error."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert not is_importable("tensorrt")
    assert not is_importable("no_such_package.part")


def test_system_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of apt are found for any Python 3; the fix makes them visible in this environment or a new one."""
    assert not is_installed_by_apt(tmp_path, "tensorrt")
    (tmp_path / "usr/lib/python3.10/dist-packages/tensorrt").mkdir(parents=True)
    assert is_installed_by_apt(tmp_path, "tensorrt")
    monkeypatch.setattr(sys, "prefix", "/home/some one/.venv")
    assert system_site_command() == "python3 -m venv --system-site-packages '/home/some one/.venv'"
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert system_site_command() == "/usr/bin/python3 -m venv --system-site-packages .venv"
