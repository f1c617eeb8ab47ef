"""A hint names only options that exist in the command that it names, else in every command that can reach it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import typer.main
from reachability import Place, places, reached_from

from edge_resnet.cli import app

#: Of Python's venv, which a hint may name without its command.
FOREIGN = frozenset({"--system-site-packages"})
#: Up to the end of the command: other programs' options are not ours.
OTHER_PROGRAMS = re.compile(
    r"\b(in a container|docker|podman|pip|sudo|apt(-get)?|python3?|mkdir|nvcc|trtexec|git|torchrun|systemctl)\b[^;,)]*"
)
#: The demonstration takes no network, images or budget from its user, so that nothing of them can be refused.
WITHOUT_INPUT = frozenset({"demo"})
#: Reached by commands whose arguments do not lead there: an engine replaces the one of its key, a report has no budget, and the
#: self-test measures on noise.
NOT_FROM = {
    ("edge_resnet.artifact.folder", "staging"): frozenset({"run"}),
    ("edge_resnet.artifact.folder", "_writing"): frozenset({"run"}),
    ("edge_resnet.quantization.int8", "check_budget_options"): frozenset({"report"}),
    ("edge_resnet.measurement.bench.inputs", "prepare_inputs"): frozenset({"selftest"}),
    ("edge_resnet.measurement.bench.rules", "BenchOptions"): frozenset({"selftest"}),
}


@dataclass(frozen=True)
class Hint:
    """``place``: the function or class that holds it. ``text``: with a blank for what is filled in."""

    place: Place
    line: int
    text: str


@cache
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


@cache
def commands_by_place() -> dict[Place, set[str]]:
    """Which commands reach each place."""
    groups = [("", app), *((f"{group.name} ", group.typer_instance) for group in app.registered_groups)]
    found: dict[Place, set[str]] = {}
    for prefix, group in groups:
        for command in group.registered_commands if group is not None else ():
            function = command.callback
            assert function is not None
            name = prefix + (command.name or function.__name__)
            for place in reached_from((function.__module__, function.__name__)):
                found.setdefault(place, set()).add(name)
    return found


@cache
def hints() -> tuple[Hint, ...]:
    """Every hint of the package: given by the keyword, assigned to a variable first, or added to an error."""
    return tuple(hint for place, nodes in places().items() for hint in _hints_of(place, nodes))


def _hints_of(place: Place, nodes: list[ast.AST]) -> Iterator[Hint]:
    for node in nodes:
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            given += [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given += node.args[:1] if called == "with_hint" else node.args[2:3] if called == "_require" else []
        elif isinstance(node, ast.Assign) and any(_is_a_hint(target) for target in node.targets):
            given.append(node.value)
        for value in given:
            yield from (Hint(place, value.lineno, text) for text in texts(value))


def _is_a_hint(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and re.search(r"hint|remedy|^_how$", target.id, re.IGNORECASE) is not None


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else " " for part in node.values)


def unknown_options(hint: Hint) -> dict[str, set[str]]:
    """The options that a command lacks, by command: of the one that stands before them, else of each that reaches the hint."""
    options, unknown = options_by_command(), dict[str, set[str]]()
    text = OTHER_PROGRAMS.sub("", hint.text)
    for clause in re.split(r"; |(?=edge-resnet )", text):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", clause)) - FOREIGN - options[""] - {"--help"}
        command = re.match(r"edge-resnet ([a-z]+(?: [a-z]+)?)", clause)
        users = commands_by_place().get(hint.place, set()) - WITHOUT_INPUT - NOT_FROM.get(hint.place, frozenset())
        if command:
            users = {name for name in (command[1], command[1].partition(" ")[0]) if name in options}
        unknown |= {user: named - options[user] for user in users if named - options[user]}
    return unknown


def test_there_are_hints_to_check() -> None:
    """The search finds the package's hints, the commands' options, and who reaches what."""
    assert len(hints()) > 250
    assert "--camera" in options_by_command()["run"]
    assert "--web" in options_by_command()["deploy systemd"]
    reached = commands_by_place()
    assert reached["edge_resnet.network.weights", "load_weights"] == {"build", "report", "train", "paper", "demo"}
    assert {"run", "eval"} <= reached["edge_resnet.runtime.tensorrt.inference", "TensorRtBackend"]
    assert (
        "run"
        in reached["edge_resnet.streaming.sources.rtsp", next(name for module, name in places() if "rtsp" in module and name)]
    )


def test_a_wrong_hint_is_noticed() -> None:
    """The check finds an option that no command, another command or only one of several has."""
    place = ("edge_resnet.network.weights", "load_weights")
    assert unknown_options(Hint(place, 1, "add --labels FILE")) == {
        "report": {"--labels"},
        "train": {"--labels"},
        "paper": {"--labels"},
    }
    assert unknown_options(Hint(place, 1, "edge-resnet run --depth 18; edge-resnet build --depth 18")) == {"run": {"--depth"}}
    assert unknown_options(Hint(place, 1, "edge-resnet build --depth 18")) == {}


def test_the_options_exist() -> None:
    """Whoever follows a hint is not refused, whichever command raised it."""
    wrong = {f"{hint.place[0]}:{hint.line}": (hint.text, lacks) for hint in hints() if (lacks := unknown_options(hint))}
    assert wrong == {}


def test_every_hint_is_reached() -> None:
    """No hint with an option escapes the check for want of a command that reaches it."""
    orphans = {hint.place for hint in hints() if "--" in OTHER_PROGRAMS.sub("", hint.text)} - commands_by_place().keys()
    assert {place for place in orphans if place[1]} == set()


@pytest.mark.parametrize("words", [("deploy",), ("deploy", "bogus"), ("bogus",), ("run", "--bogus")])
def test_the_parsers_errors_say_what_is_wrong(words: tuple[str, ...], cli: object) -> None:
    """No error line is empty, and its hint is the help of the command at hand."""
    outcome = cli(*words)  # type: ignore[operator]
    assert outcome.code == 2
    assert [len(line) > 8 for line in outcome.err.splitlines()] == [True, True], outcome.err
    assert outcome.out == ""
