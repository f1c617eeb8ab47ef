"""A module with exactly the names of an API surface, recorded or of an installed module; any other name raises AttributeError."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["VERSIONS", "like", "strict"]

#: The oldest, those of JetPack 6.2 and 7.1, the line of JetPack 7.2, and the newest.
VERSIONS = ("8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.__name__} {self.__dict__.get('__version__')} has no {name}")


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
            setattr(module, name, _only(name, classes[name], frozenset(members), module))
        elif capitals:
            setattr(module, name, enum.IntEnum(name, {member: number for number, member in enumerate(capitals)}))
    return module


def like(real: ModuleType, classes: Mapping[str, type]) -> ModuleType:
    """An installed module whose ``classes`` have another behaviour, reduced to what the real classes have. The rest is real."""
    module = _Module(real.__name__)
    module.__dict__.update({name: value for name, value in vars(real).items() if not name.startswith("_")})
    module.__dict__.update(__version__=real.__version__, __spec__=real.__spec__)
    for name, behaviour in classes.items():
        members = frozenset(member for member in dir(getattr(real, name)) if not member.startswith("_"))
        setattr(module, name, _only(name, behaviour, members, module))
    return module


def _only(name: str, behaviour: type, allowed: frozenset[str], module: ModuleType) -> type:
    """The behaviour without what the real class lacks; setting or reading any other public name raises.

    The behaviour finds the module's other classes in ``_module``.
    """

    def refuse(self: Any, attribute: str) -> Any:
        raise AttributeError(f"{module.__name__} {module.__dict__['__version__']}: {name} has no {attribute}")

    def set_known(self: Any, attribute: str, value: Any) -> None:
        if not attribute.startswith("_") and attribute not in allowed:
            refuse(self, attribute)
        object.__setattr__(self, attribute, value)

    kept = {key: value for key, value in vars(behaviour).items() if key.startswith("_") or key in allowed}
    for key in ("__dict__", "__weakref__"):
        kept.pop(key, None)
    return type(name, (), {**kept, "_module": module, "__getattr__": refuse, "__setattr__": set_known})
