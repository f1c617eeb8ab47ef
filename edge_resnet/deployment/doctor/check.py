"""What ``doctor`` says of one thing, and how a package is looked for without importing it. Knows nothing of what is needed."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = ["Check", "Group", "Status", "is_importable", "is_installed_by_apt", "system_site_command"]

Status: TypeAlias = Literal["ok", "missing", "problem"]
Group: TypeAlias = Literal["machine", "base", "compile", "build", "camera", "backends", "tensorrt", "demo"]


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``missing``: not there and not needed here, or optional.

    ``fix``: the one command that mends it, empty where none can or none is needed. What works and could be faster has one too.
    """

    name: str
    status: Status
    detail: str
    fix: str
    group: Group


def is_importable(module: str) -> bool:
    """Whether this Python could import the module, as far as can be said without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    # Any folder of that name on the path is a namespace package, which has no origin.
    return spec is not None and spec.origin is not None


def is_installed_by_apt(root: Path, module: str) -> bool:
    """Whether apt installed the module for the system's Python, whichever Python asks."""
    return any(root.glob(f"usr/lib/python3*/dist-packages/{module}*"))


def system_site_command() -> str:
    """The command that lets this virtual environment see the packages that apt installed; it keeps what is in it."""
    if sys.prefix == sys.base_prefix:
        return "/usr/bin/python3 -m venv --system-site-packages .venv"
    return f"python3 -m venv --system-site-packages {shlex.quote(sys.prefix)}"
