"""The installed TensorRT and TensorRT for RTX: loading them, what they offer, and their first objects. Keeps no list of features.

Features are detected, because 8.6 to 11 differ in many. Builds nothing and runs nothing.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Literal, TypeAlias

from edge_resnet.core.errors import BackendError, ConfigError, MissingDependencyError
from edge_resnet.core.records import Typing

__all__ = ["LIBRARIES", "Library", "LibraryName", "library_of", "load_library", "network_flags", "typing_of", "version_of"]

LibraryName: TypeAlias = Literal["tensorrt", "tensorrt_rtx"]
#: Weak typing is deprecated since 10.12 and removed in 11; strong typing is complete since 10.12 (NVIDIA's migration guide).
_STRONG_FROM = (10, 12)


@dataclass(frozen=True)
class Library:
    """A library with TensorRT's API. ``title``: its name in messages. ``extra``: of this package, which installs it.

    ``oldest``: the first version that works, with ``oldest_hint`` on where to get it. ``ahead``: it builds for GPUs that need not
    be there, without a driver; such a library measures no tactics, and has no timing cache.
    """

    title: str
    extra: str
    oldest: tuple[int, ...]
    oldest_hint: str
    ahead: bool = False


#: Name of the module → what is known about the library.
LIBRARIES: Mapping[LibraryName, Library] = MappingProxyType(
    {
        "tensorrt": Library("TensorRT", "tensorrt", (8, 6), "JetPack 6.0 or newer includes it"),
        "tensorrt_rtx": Library("TensorRT for RTX", "rtx", (1, 4), "pip install --upgrade 'edge-resnet[rtx]'", ahead=True),
    }
)


def load_library(name: LibraryName) -> ModuleType:
    """Import the module. Raises MissingDependencyError if it is not installed, or if its shared libraries cannot be loaded."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        known = LIBRARIES[name]
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        said = str(error).strip().partition("\n")[0]
        reason = "is not installed" if absent else f"cannot be loaded ({said})"
        raise MissingDependencyError(f"{known.title} {reason}", hint=f"pip install 'edge-resnet[{known.extra}]'") from error


def library_of(trt: ModuleType) -> Library:
    """What is known about the library of a module."""
    return LIBRARIES["tensorrt_rtx" if trt.__name__ == "tensorrt_rtx" else "tensorrt"]


def version_of(trt: ModuleType) -> tuple[int, ...]:
    """(major, minor, patch …). Raises BackendError for a version that is too old, and for a module without a version."""
    known = library_of(trt)
    text = str(getattr(trt, "__version__", ""))
    version = tuple(int(number) for number in re.findall(r"\d+", text)[:4])
    if not version:
        raise BackendError(
            f"the {trt.__name__} package has no version", hint=f"pip install --force-reinstall 'edge-resnet[{known.extra}]'"
        )
    if version < known.oldest:
        needed = ".".join(map(str, known.oldest))
        raise BackendError(f"{known.title} {text} is too old: {needed} or newer is needed", hint=known.oldest_hint)
    return version


def typing_of(trt: ModuleType) -> Typing:
    """How this library learns a tensor's precision, which decides the graph and the flags that it gets."""
    version = version_of(trt)
    if not hasattr(trt.BuilderFlag, "FP16"):
        return "strong"
    return "strong" if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") and version >= _STRONG_FROM else "weak"


def network_flags(trt: ModuleType, typing: Typing) -> int:
    """The bits for ``create_network``: an explicit batch if this version has that flag, and strong typing if asked for.

    Raises ConfigError if this library does not support the typing.
    """
    flags = trt.NetworkDefinitionCreationFlag
    bits = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    title = f"{library_of(trt).title} {trt.__version__}"
    if typing == "strong":
        if not hasattr(flags, "STRONGLY_TYPED"):
            raise ConfigError(f"{title} has no strong typing", hint="derive the weakly typed graph")
        bits |= 1 << int(flags.STRONGLY_TYPED)
    elif not hasattr(trt.BuilderFlag, "FP16"):
        raise ConfigError(f"{title} has no weak typing", hint="derive the strongly typed graph")
    return bits
