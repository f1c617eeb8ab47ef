"""Whether a test that a document names exists."""

from __future__ import annotations

import functools
import re
from pathlib import Path

__all__ = ["is_a_test"]

_REPO = Path(__file__).resolve().parent.parent


@functools.cache
def _functions(file: str) -> frozenset[str]:
    path = _REPO / file
    return (
        frozenset(re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))
        if path.is_file()
        else frozenset()
    )


def is_a_test(name: str) -> bool:
    """Whether ``tests/FILE.py::FUNCTION`` names a test function."""
    file, _, function = name.partition("::")
    return file.startswith("tests/") and function in _functions(file)
