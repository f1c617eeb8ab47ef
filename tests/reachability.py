"""Which commands can reach which function of the package, read from the source: imports, names and tables of module names.

A place is a function or a class at the top of a module. Whatever names a place reaches it, and a class with all its methods:
that is more than is ever called. A module that is named in a string, as backends and sources are, is reached as a whole.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

__all__ = ["Place", "places", "reached_from"]

#: Module and name; the name is empty for what else the module holds.
Place: TypeAlias = tuple[str, str]

PACKAGE = Path(__file__).resolve().parent.parent / "edge_resnet"
_MODULE = re.compile(r"(edge_resnet(?:\.\w+)+)(?::(\w+))?")


@cache
def places() -> Mapping[Place, list[ast.AST]]:
    """The syntax tree of every place, flattened."""
    found: dict[Place, list[ast.AST]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[module, ""] = []
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            name = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ""
            found[module, name].extend(ast.walk(node))
    return dict(found)


def reached_from(start: Place) -> set[Place]:
    """The places that can be reached from one, itself included."""
    seen: set[Place] = set()
    waiting = [start]
    while waiting:
        place = waiting.pop()
        if place in places() and place not in seen:
            seen.add(place)
            waiting.extend(_named_in(place))
    return seen


@cache
def _named_in(place: Place) -> frozenset[Place]:
    module, name = place
    if not name:
        return frozenset()  # code of a module's own runs without a user's input
    tables, names = _tables(module), {**_imports((module, "")), **_imports(place)}
    found: set[Place] = set()
    for node in places()[place]:
        if isinstance(node, ast.Name):
            found |= {(module, node.id), *names.get(node.id, ()), *tables.get(node.id, ())}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {(owner, node.attr) for owner, _ in names.get(node.value.id, ())}
        else:
            found |= _in_text(node)
    return frozenset(found)


@cache
def _imports(place: Place) -> Mapping[str, list[Place]]:
    """What each imported name stands for; a name that a package's __init__ hands on is followed to where it is defined."""
    found: dict[str, list[Place]] = {}
    for node in places()[place]:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("edge_resnet"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if (inner, "") in places():
                    found[alias.asname or alias.name] = [(inner, "")]
                else:
                    handed = _imports((node.module, "")).get(alias.name, []) if (node.module, "") != place else []
                    found[alias.asname or alias.name] = [(node.module, alias.name), *handed]
    return found


@cache
def _tables(module: str) -> Mapping[str, set[Place]]:
    """What the constants of a module name: whoever reads such a table reaches it."""
    imported, found = _imports((module, "")), defaultdict[str, set[Place]](set)
    for node in places()[module, ""]:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            for part in ast.walk(node.value):
                if isinstance(target, ast.Name):
                    named = {(module, part.id), *imported.get(part.id, ())} if isinstance(part, ast.Name) else _in_text(part)
                    found[target.id] |= named
    return found


def _in_text(node: ast.AST) -> set[Place]:
    """The function that a text names as ``module:name``, or all of the module that it names."""
    match = _MODULE.fullmatch(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
    if match is None:
        return set()
    return {(match[1], match[2])} if match[2] else set(_of_module(match[1]))


def _of_module(module: str) -> Iterable[Place]:
    """Its places, and those of what ``python -m`` runs."""
    return (place for place in places() if place[0] in (module, f"{module}.__main__"))
