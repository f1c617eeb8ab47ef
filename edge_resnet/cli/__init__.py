"""The command line: each handler parses its options, calls one function and prints. Heavy libraries are imported in handlers."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from edge_resnet.cli.bench import bench
from edge_resnet.cli.build import build
from edge_resnet.cli.calibrate import calibrate
from edge_resnet.cli.command import Command
from edge_resnet.cli.compare import compare
from edge_resnet.cli.compile import compile_
from edge_resnet.cli.demo import demo
from edge_resnet.cli.deploy import deploy
from edge_resnet.cli.doctor import doctor
from edge_resnet.cli.evaluate import evaluate
from edge_resnet.cli.failures import (
    USAGE_ERROR,
    Failure,
    describe,
    discard_stdout,
    is_reader_gone,
    open_missing_streams,
    print_failure,
)
from edge_resnet.cli.inspect import inspect
from edge_resnet.cli.models import models
from edge_resnet.cli.paper import paper
from edge_resnet.cli.report import report
from edge_resnet.cli.run import run
from edge_resnet.cli.selftest import selftest
from edge_resnet.cli.train import train
from edge_resnet.core import __version__
from edge_resnet.core.errors import INTERRUPTED, EdgeResnetError
from edge_resnet.core.text import printable

__all__ = ["app", "main"]

#: Seconds for cameras' threads at the end.
_READERS_S = 0.2
_INTERRUPTED = Failure("interrupted", "", INTERRUPTED)

app = typer.Typer(
    name="edge-resnet",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A trained ResNet on a Jetson, a desktop GPU or a CPU.\n\n"
    "edge-resnet build --depth 50 --int8   then   edge-resnet run --camera 0",
)
app.command(cls=Command)(build)
app.command()(calibrate)
app.command("compile")(compile_)
app.command()(run)
app.command("eval")(evaluate)
app.command()(bench)
app.command()(report)
app.command()(compare)
app.command()(inspect)
app.command(cls=Command)(train)
app.command(cls=Command)(paper)
app.command()(models)
app.command()(doctor)
app.command()(selftest)
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
    open_missing_streams()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, _terminate)
    _log_to_stderr(logging.DEBUG if debug else logging.WARNING)
    try:
        code = app(arguments, prog_name="edge-resnet", standalone_mode=False)
        sys.stdout.flush()  # now: at Python's end it could not be reported that nothing was written
        if code == INTERRUPTED:  # newer versions of typer convert Ctrl-C to this themselves
            print_failure(_INTERRUPTED)
    except EdgeResnetError as error:
        if debug:
            raise
        code = print_failure(Failure(error.message, error.hint, error.exit_code))
    except (KeyboardInterrupt, typer.Abort):
        code = print_failure(_INTERRUPTED)
    except (Exception, SystemExit) as error:
        code = _ended_by(error, arguments, debug=debug)
    _leave(code or 0)


def _ended_by(error: Exception | SystemExit, arguments: list[str], *, debug: bool) -> int:
    """The exit code after an error that is not ours, which is reported. Raises it again for --debug."""
    if is_reader_gone(error):
        discard_stdout()
        return 0
    if isinstance(error, SystemExit) or (debug and not isinstance(error, USAGE_ERROR)):
        raise error
    discard_stdout()
    return print_failure(describe(error, arguments, _command_of(arguments)))


def _leave(code: int) -> NoReturn:
    """Exit, and do not wait for a camera's driver or decoder that hangs."""
    live = sys.modules.get("edge_resnet.streaming.sources.live")
    if live is not None and not live.end_readers(_READERS_S):
        with suppress(OSError, ValueError):  # the reader of an output may have closed it
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # Python would abort the process when the thread comes back
    atexit.register(_end_at_once)  # the last to be registered is the first to be called
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature of a signal handler
    """End cleanly on SIGTERM, and when the terminal is closed, as on Ctrl-C."""
    raise KeyboardInterrupt


def _end_at_once() -> None:
    """Let a signal end the process while libraries clean up: the command is over, and each would show a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _command_of(arguments: list[str]) -> str:
    """The command among the arguments, with its subcommand: ``deploy systemd``; empty if there is none."""
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    if not arguments or arguments[0] in names:
        return arguments[0] if arguments else ""
    for group in app.registered_groups:
        if group.name == arguments[0] and group.typer_instance is not None:
            below = {command.name for command in group.typer_instance.registered_commands}
            return " ".join(arguments[:2]) if len(arguments) > 1 and arguments[1] in below else arguments[0]
    return ""


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the present ``sys.stderr``: while a bar is drawn that is rich's, which puts a line above the bar."""

    @property
    def stream(self) -> Any:
        """The file that messages go to."""
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        """Accept what the base class sets, and forget it."""


class _PlainFormatter(logging.Formatter):
    """Formats records whose text may come from a camera or a file."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - the base's name
        return printable(super().formatException(ei), lines=True)  # type: ignore[arg-type]


def _log_to_stderr(level: int) -> None:
    """Show warnings of this package, one line each; other libraries log nothing unless debugging."""
    handler = _StderrHandler()
    handler.setFormatter(_PlainFormatter("%(levelname)s: %(message)s" if level > logging.DEBUG else "%(name)s: %(message)s"))
    logger = logging.getLogger("edge_resnet")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
