"""The project's wheel, built from a copy of the tracked tree with the setuptools that is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["build_wheel"]

REPO = Path(__file__).resolve().parent.parent


def build_wheel(folder: Path) -> Path:
    """Build the wheel in a folder that is empty; skips the test where setuptools is too old."""
    source, target = folder / "source", folder / "wheel"
    source.mkdir()
    target.mkdir()
    copy = "git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t"
    subprocess.run(["bash", "-c", f'{copy} "{source}"'], check=True, cwd=REPO)
    pytest.importorskip("setuptools", minversion="77", reason="builds the wheel without an environment of its own")
    code = f"import sys; sys.argv = ['setup.py']; from setuptools import build_meta; build_meta.build_wheel({str(target)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=source, capture_output=True)
    return next(target.glob("*.whl"))
