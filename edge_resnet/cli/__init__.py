"""The command line: each handler parses its options, calls one function and prints. Heavy libraries are imported in handlers."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Annotated, NoReturn

import typer

from edge_resnet.cli.bench import bench
from edge_resnet.cli.build import build
from edge_resnet.cli.calibrate import calibrate
from edge_resnet.cli.compare import compare
from edge_resnet.cli.compile import compile_
from edge_resnet.cli.demo import demo
from edge_resnet.cli.deploy import deploy
from edge_resnet.cli.doctor import doctor
from edge_resnet.cli.evaluate import evaluate
from edge_resnet.cli.inspect import inspect
from edge_resnet.cli.models import models
from edge_resnet.cli.paper import paper
from edge_resnet.cli.report import report
from edge_resnet.cli.run import run
from edge_resnet.cli.train import train
from edge_resnet.core import __version__
from edge_resnet.core.errors import INTERRUPTED, EdgeResnetError
from edge_resnet.core.text import printable

__all__ = ["app", "main"]

_BUILDING = ("build", "calibrate")
#: Seconds for cameras' threads at the end.
_READERS_S = 0.2
#: The base of the parser's errors: click's ClickException, of which newer versions of typer have their own copy.
_USAGE = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="edge-resnet",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A trained ResNet on a Jetson, a desktop GPU or a CPU.\n\n"
    "edge-resnet build --depth 50 --int8   then   edge-resnet run --camera 0",
)
app.command()(build)
app.command()(calibrate)
app.command("compile")(compile_)
app.command()(run)
app.command("eval")(evaluate)
app.command()(bench)
app.command()(report)
app.command()(compare)
app.command()(inspect)
app.command()(train)
app.command()(paper)
app.command()(models)
app.command()(doctor)
app.command()(demo)
app.add_typer(deploy, name="deploy")


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"edge-resnet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log every step and show tracebacks.")] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command and exit: 0 success, 1 the machine failed, 2 wrong input, 3 a gate failed, 130 interrupted."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    arguments = arguments or ["--help"]
    signal.signal(signal.SIGTERM, _terminate)
    _log_to_stderr(logging.DEBUG if debug else logging.WARNING)
    try:
        code = app(arguments, prog_name="edge-resnet", standalone_mode=False)
        if code == INTERRUPTED:  # newer versions of typer convert Ctrl-C to this themselves
            _fail("interrupted", "", INTERRUPTED)
    except EdgeResnetError as error:
        if debug:
            raise
        code = _fail(error.message, error.hint, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", "", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has closed it, as head does: no error
        code = 0
    except Exception as error:
        if debug and not isinstance(error, _USAGE):
            raise
        code = _explain(error, arguments)
    _leave(code or 0)


def _explain(error: Exception, arguments: list[str]) -> int:
    """Report an error that is not ours: arguments that the parser refuses, a missing package, or a bug."""
    if isinstance(error, _USAGE):
        return _fail(_usage_text(error), f"edge-resnet {_command_of(arguments)}--help", 2)
    if isinstance(error, ModuleNotFoundError):
        from edge_resnet.core.packages import EXTRAS, extra_command

        extra = EXTRAS.get(error.name or "")
        if extra is not None:
            # A command that builds needs torch as well, which would be missing next.
            extra = "build" if error.name == "onnx" and arguments[0] in _BUILDING else extra
            return _fail(f"this command needs {error.name}", extra_command(extra), 1)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return _fail(text, "this is a bug: run the command again with --debug and report the output", 1)


def _leave(code: int) -> NoReturn:
    """Exit, and do not wait for a camera's driver or decoder that hangs."""
    live = sys.modules.get("edge_resnet.streaming.sources.live")
    if live is not None and not live.end_readers(_READERS_S):
        with suppress(OSError, ValueError):  # the reader of an output may have closed it
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # Python would abort the process when the thread comes back
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature of a signal handler
    """End cleanly on SIGTERM, as on Ctrl-C."""
    raise KeyboardInterrupt


def _usage_text(error: Exception) -> str:
    text: str = error.format_message()  # type: ignore[attr-defined]  # every ClickException has it
    return " ".join(text.split()).rstrip(".")


def _command_of(arguments: list[str]) -> str:
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups if group.name}
    return f"{arguments[0]} " if arguments and arguments[0] in names else ""


def _fail(message: str, hint: str, code: int) -> int:
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(printable(message), err=True)
    if hint:
        typer.secho("hint: ", fg="cyan", err=True, nl=False)
        typer.echo(printable(hint), err=True)
    return code


class _PlainFormatter(logging.Formatter):
    """Formats records whose text may come from a camera or a file."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - the base's name
        return printable(super().formatException(ei), lines=True)  # type: ignore[arg-type]


def _log_to_stderr(level: int) -> None:
    """Show warnings of this package, one line each; other libraries log nothing unless debugging."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("%(levelname)s: %(message)s" if level > logging.DEBUG else "%(name)s: %(message)s"))
    logger = logging.getLogger("edge_resnet")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
