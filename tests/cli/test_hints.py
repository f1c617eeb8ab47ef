"""A hint names only options that exist: those of its own command in the command line's modules, of some command elsewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from edge_resnet.cli import app

PACKAGE = Path(__file__).resolve().parents[2] / "edge_resnet"
#: Modules of the command line whose command has another name; those that several commands share are not in it.
COMMAND_OF = {"evaluate": "eval", "qat": "train"}
#: Of Python's venv, which a hint may name without its command.
FOREIGN = frozenset({"--system-site-packages"})
#: Up to the end of the command: other programs' options are not ours.
OTHER_PROGRAMS = re.compile(
    r"\b(in a container|docker|podman|pip|sudo|apt(-get)?|python3?|mkdir|nvcc|trtexec|git|torchrun|systemctl)\b[^;,)]*"
)


def options_by_command() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}

    def walk(command: object, name: str) -> None:
        found[name] = {
            option for parameter in getattr(command, "params", ()) for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for below, subcommand in getattr(command, "commands", {}).items():
            walk(subcommand, f"{name} {below}".strip())

    walk(typer.main.get_command(app), "")
    return found


OPTIONS = options_by_command()
EVERY_COMMAND = set.union(*OPTIONS.values()) | {"--help"}


def hints() -> Iterator[tuple[str, str]]:
    """Where each hint stands, and its text, with a blank for what is filled in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                if keyword.arg == "hint":
                    for text in texts(keyword.value):
                        yield f"{path.relative_to(PACKAGE)}:{keyword.value.lineno}", text


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else " " for part in node.values)


def known_options(place: str, text: str) -> set[str]:
    """Those of the command that the hint itself names, else those of the module's command, else all."""
    named = re.search(r"edge-resnet ([a-z]+)( [a-z]+)?", text)
    if named:
        for name in (named[0].removeprefix("edge-resnet "), named[1]):
            if name in OPTIONS:
                return OPTIONS[name] | OPTIONS[""]
    module = Path(place.partition(":")[0])
    command = COMMAND_OF.get(module.stem, module.stem)
    if module.parts[0] != "cli" or command not in OPTIONS:
        return EVERY_COMMAND
    below = [options for name, options in OPTIONS.items() if name.startswith(f"{command} ")]
    return set.union(OPTIONS[command], OPTIONS[""], *below)


def test_there_are_hints_to_check() -> None:
    """The search finds the package's hints and the commands' options."""
    assert len(list(hints())) > 150
    assert "--camera" in OPTIONS["run"]
    assert "--web" in OPTIONS["deploy systemd"]


@pytest.mark.parametrize(("place", "text"), [pytest.param(*hint, id=hint[0]) for hint in hints() if "--" in hint[1]])
def test_the_options_exist(place: str, text: str) -> None:
    """Whoever follows the hint is not refused."""
    for clause in OTHER_PROGRAMS.sub("", text).split(";"):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", clause))
        assert named - FOREIGN <= known_options(place, clause)
