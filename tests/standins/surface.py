"""A module ``tensorrt`` of a version with exactly the names of its recorded API surface; any other name raises AttributeError."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["VERSIONS", "strict"]

#: The oldest, those of JetPack 6.2 and 7.1, the line of JetPack 7.2, and the newest.
VERSIONS = ("8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"TensorRT {self.__dict__.get('__version__')} has no {name}")


def strict(version: str, classes: Mapping[str, type], folder: Path) -> ModuleType:
    """The module of a version. ``classes``: class name → behaviour, reduced to what the surface has. ``folder``: of the surfaces.

    Names without behaviour become enumerations of their members in capitals; other names are left out.
    """
    names: dict[str, Any] = json.loads((folder / f"{version}.json").read_text(encoding="utf-8"))["names"]
    module = _Module("tensorrt")
    module.__dict__["__version__"] = version
    for name, members in names.items():
        if not isinstance(members, list):
            continue
        capitals = [member for member in members if member.isupper()]
        if name in classes:
            setattr(module, name, _only(name, classes[name], frozenset(members), version))
        elif capitals:
            setattr(module, name, enum.IntEnum(name, {member: number for number, member in enumerate(capitals)}))
    return module


def _only(name: str, behaviour: type, allowed: frozenset[str], version: str) -> type:
    """The behaviour without what the version lacks; setting or reading any other public name raises."""

    def refuse(self: Any, attribute: str) -> Any:
        raise AttributeError(f"TensorRT {version}: {name} has no {attribute}")

    def set_known(self: Any, attribute: str, value: Any) -> None:
        if not attribute.startswith("_") and attribute not in allowed:
            refuse(self, attribute)
        object.__setattr__(self, attribute, value)

    kept = {key: value for key, value in vars(behaviour).items() if key.startswith("_") or key in allowed}
    for key in ("__dict__", "__weakref__"):
        kept.pop(key, None)
    return type(name, (), {**kept, "__getattr__": refuse, "__setattr__": set_known})
