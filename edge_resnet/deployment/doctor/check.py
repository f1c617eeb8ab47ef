"""The record of one check, and how to find a package without importing it. Does not know what is needed."""

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
    """The result of one check. ``missing``: absent, and optional or not needed on this machine.

    ``fix``: the one command that fixes it; empty if there is none or none is needed. A check that is ok has a fix where the
    machine could be faster.
    """

    name: str
    status: Status
    detail: str
    fix: str
    group: Group


def is_importable(module: str) -> bool:
    """Whether this Python finds the module; it may still fail to import."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    # Any folder of that name on the path counts as a namespace package, which has no origin.
    return spec is not None and spec.origin is not None


def is_installed_by_apt(root: Path, module: str) -> bool:
    """Whether apt installed the module for the system's Python; this Python may be another."""
    return any(root.glob(f"usr/lib/python3*/dist-packages/{module}*"))


def system_site_command() -> str:
    """The command that makes the packages of apt visible in this virtual environment; what it contains is kept."""
    if sys.prefix == sys.base_prefix:
        return "/usr/bin/python3 -m venv --system-site-packages .venv"
    return f"python3 -m venv --system-site-packages {shlex.quote(sys.prefix)}"
