"""What a command ends with if it is not one of our errors: the parser's, a missing package, memory, a full disk, a bug.

Knows the standard streams, of which each may be closed, full or without a reader.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import typer

from edge_resnet.core.errors import is_out_of_memory
from edge_resnet.core.text import printable

__all__ = [
    "USAGE_ERROR",
    "Failure",
    "describe",
    "discard_stdout",
    "is_reader_gone",
    "open_missing_streams",
    "print_failure",
    "reader_may_leave",
]

#: The base of the parser's errors: click's ClickException, of which newer versions of typer have their own copy.
USAGE_ERROR = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

_BUILDING = ("build", "calibrate")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MEMORY_HINT = "free some memory, raise the limit of this process (ulimit -v, a container's), or process less at once"


@dataclass(frozen=True)
class Failure:
    """What a command ends with: a line on what is wrong, a line on what to do, and the exit code."""

    message: str
    hint: str
    code: int


def describe(error: BaseException, arguments: Sequence[str], command: str) -> Failure:
    """What to say of an error that is not ours. ``command``: the name of the command among the arguments, or empty."""
    if isinstance(error, USAGE_ERROR):
        text: str = error.format_message()  # type: ignore[attr-defined]  # every ClickException has it
        return Failure(" ".join(text.split()).rstrip("."), f"edge-resnet {command}{' ' if command else ''}--help", 2)
    if is_out_of_memory(error):
        return Failure("there is not enough memory", _MEMORY_HINT, 1)
    if isinstance(error, OSError) and error.errno in _FULL:
        return Failure(f"{error.filename or 'the output'} cannot be written: {error.strerror}", "free some disk space", 1)
    if isinstance(error, ModuleNotFoundError):
        from edge_resnet.core.packages import EXTRAS, extra_command

        extra = EXTRAS.get(error.name or "")
        if extra is not None:
            # A command that builds needs torch as well, which would be missing next.
            extra = "build" if error.name == "onnx" and arguments[0] in _BUILDING else extra
            return Failure(f"this command needs {error.name}", extra_command(extra), 1)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return Failure(text, "this is a bug: run the command again with --debug and report the output", 1)


def print_failure(failure: Failure) -> int:
    """Print a failure to stderr, if that can be written. Returns its exit code."""
    with suppress(OSError):
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(printable(failure.message), err=True)
        if failure.hint:
            typer.secho("hint: ", fg="cyan", err=True, nl=False)
            typer.echo(printable(failure.hint), err=True)
    return failure.code


def open_missing_streams() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that whoever started us has closed.

    Otherwise the next file that is opened takes the number, and what a library prints is written into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:  # the lowest that is free
        pass
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print in this block what the exit code does not depend on: if nobody reads any more, the command goes on."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        if not is_reader_gone(error):
            raise
        discard_stdout()


def is_reader_gone(error: BaseException) -> bool:
    """Whether a command ended because nobody reads its output any more, as after head. rich ends the process with 1 then."""
    return isinstance(error, BrokenPipeError) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    )


def discard_stdout() -> None:
    """Let what is still buffered go nowhere, since stdout cannot be written: Python would complain at its end."""
    with suppress(OSError, ValueError):  # no descriptor: a caller's replacement of stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
