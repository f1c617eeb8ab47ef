"""Options of several values: both separators, in every command that has such an option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.cli import app
from edge_resnet.cli.command import Command

Cli = Callable[..., Any]
NUMBERS = (".485", "0.456", "4.06e-1")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WIDE = [
    (name, option.opts[0]) for name, command in COMMANDS.items() for option in command.params
    if option.nargs > 1 and option.opts[0].startswith("-")
]  # fmt: skip


def parsed(command: str, option: str, words: list[str]) -> tuple[float, ...]:
    context = COMMANDS[command].make_context(command, list(words), resilient_parsing=True)
    values: tuple[float, ...] = context.params[option.lstrip("-").replace("-", "_")]
    return values


def test_every_such_option_is_read_by_the_class() -> None:
    """A command with an option of several values is registered with the class that separates them."""
    assert {(name, option) for name, option in WIDE} >= {("build", "--mean"), ("train", "--std"), ("paper", "--mean")}
    assert all(isinstance(COMMANDS[name], Command) for name, _ in WIDE)


@pytest.mark.parametrize(("command", "option"), WIDE)
@pytest.mark.parametrize(
    "words",
    [["{o}", *NUMBERS], ["{o}", ",".join(NUMBERS)], ["{o}=" + ",".join(NUMBERS)], ["{o}", ", ".join(NUMBERS)],
     ["{o}", " ".join(NUMBERS)], ["{o}", *(f"{number}," for number in NUMBERS)]],
    ids=["spaces", "commas", "equals", "comma and space", "quoted", "both"],
)  # fmt: skip
def test_spaces_and_commas_are_the_same(command: str, option: str, words: list[str]) -> None:
    """However the three values are separated, the command gets the same three numbers."""
    assert parsed(command, option, [word.format(o=option) for word in words]) == (0.485, 0.456, 0.406)


@given(st.lists(st.text("ab,- 1.=", min_size=1), max_size=6))
def test_other_words_stay_as_they_are(words: list[str]) -> None:
    """Nothing is separated that does not follow such an option."""
    from edge_resnet.cli.command import _separated

    assert _separated(words, {"--mean": 3}) == words


@pytest.mark.parametrize("values", [".485,.456", ".485,.456,.406,.5", "a,b,c", ","])
def test_another_number_of_values_is_refused(values: str, cli: Cli) -> None:
    """Two or four values, or words, are an error of the parser with exit code 2."""
    outcome = cli("build", "--mean", values, "--fp32")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
