"""The public types: a program that uses every public name passes mypy and pyright in their strict modes."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import edge_resnet as er

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent


def test_the_program_uses_every_public_name() -> None:
    """A name that is added to ``__all__`` is added there too."""
    used = set(re.findall(r"\ber\.(\w+)", (HERE / "api.py").read_text(encoding="utf-8")))
    assert used >= set(er.__all__)


@pytest.mark.slow  # make lint runs it too
def test_pyright_accepts_it() -> None:
    """By way of basedpyright, which brings its own node: the package pyright downloads itself when it first runs."""
    if find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed")
    _check(sys.executable, "-m", "basedpyright", "--project", str(HERE), "--pythonpath", sys.executable)


@pytest.mark.slow  # make lint runs it too, with the cache of the whole package
def test_mypy_accepts_it() -> None:
    """In its strict mode, as a program that uses the package."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    _check(sys.executable, "-m", "mypy", "--strict", str(HERE / "api.py"))


def _check(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
    assert result.returncode == 0, result.stdout + result.stderr
