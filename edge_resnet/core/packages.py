"""Python packages: which are installed, which versions edge-resnet requires, and the extra that installs a missing one.

Reads the metadata that pip keeps and imports none of the packages. ``packaging`` is imported where versions are compared, so
that doctor's child processes, which ask for nothing but what is installed, need the standard library alone.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from edge_resnet.core.errors import MissingDependencyError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["EXTRAS", "extra_command", "installed_version", "is_older", "minimum_version", "required_packages"]

_PROJECT = "edge-resnet"

#: Import name of an optional package → the extra that installs it.
EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "cv2": "camera",
        "huggingface_hub": "hub",
        "jinja2": "report",
        "matplotlib": "report",
        "onnx": "compile",
        "openvino": "openvino",
        "paho": "mqtt",
        "prometheus_client": "web",
        "pycuda": "tensorrt",
        "safetensors": "build",
        "sklearn": "demo",
        "starlette": "web",
        "tensorboard": "train",
        "tensorrt": "tensorrt",
        "tensorrt_rtx": "rtx",
        "torch": "build",
        "torchvision": "build",
        "uvicorn": "web",
    }
)


def extra_command(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{_PROJECT}[{extra}]'"


def installed_version(*distributions: str) -> str | None:
    """The version of the first of these distributions (pip's names) that is installed, None if none is."""
    for name in distributions:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def required_packages(extra: str = "") -> dict[str, str]:
    """Distribution → minimum version, for what edge-resnet itself requires or, if given, what ``extra`` adds to that.

    Other extras that the extra includes are left out. Raises MissingDependencyError if edge-resnet runs without being installed.
    """
    found = {}
    for requirement in _requirements():
        in_base = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        in_extra = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if in_extra and not (extra and in_base) and requirement.name != _PROJECT:
            found[requirement.name] = _minimum(requirement)
    return found


def minimum_version(distribution: str) -> str:
    """The oldest version of a distribution that edge-resnet or one of its extras accepts; empty if any version is accepted.

    Raises KeyError if nothing requires it, and MissingDependencyError as ``required_packages`` does.
    """
    from packaging.utils import canonicalize_name

    wanted = canonicalize_name(distribution)
    for requirement in _requirements():
        if canonicalize_name(requirement.name) == wanted:
            return _minimum(requirement)
    raise KeyError(distribution)


def is_older(version: str, minimum: str) -> bool:
    """Whether a release is below a minimum: 1.9 is older than 1.10; pre-release and local suffixes are ignored.

    False if either is not a version that can be compared.
    """
    from packaging.version import InvalidVersion, Version

    try:
        found, needed = (Version(Version(text).base_version) for text in (version, minimum))
    except InvalidVersion:
        return False
    return found < needed


@cache
def _requirements() -> tuple[Requirement, ...]:
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(_PROJECT) or []
    except importlib.metadata.PackageNotFoundError as error:
        message = f"{_PROJECT} is not installed, so the versions that it requires are unknown"
        raise MissingDependencyError(message, hint=f"pip install {_PROJECT}, or pip install -e . in a checkout") from error
    return tuple(Requirement(line) for line in lines)


def _minimum(requirement: Requirement) -> str:
    return next((bound.version for bound in requirement.specifier if bound.operator == ">="), "")
