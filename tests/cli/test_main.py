"""The entry point: exit codes, one-line errors, --debug, what a missing package looks like."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from children import started
from PIL import Image

from edge_resnet import network
from edge_resnet.core.modelnames import NAMED

Cli = Callable[..., Any]


def _assert_one_line_error(outcome: Any, code: int) -> None:
    lines = outcome.err.strip().splitlines()
    assert outcome.code == code, outcome.err
    assert [line.split(":")[0] for line in lines if line.startswith(("error", "hint"))] == ["error", "hint"], outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    "words",
    [
        ("bild",),
        ("build", "--depth", "fifty"),
        ("build", "--depth", "51"),
        ("build", "--family", "cifar", "--depth", "21"),
        ("build", "--family", "mnist"),
        ("build", "--int8", "--fp32"),
        ("build", "--batch", "8,1,2"),
        ("build", "--batch", "many"),
        ("build", "--batch", "1,2"),
        ("build", "--int8", "--percentile", "101"),
        ("build", "--int8", "--calib-method", "max", "--percentile", "99"),
        ("build", "--calib-images", "0", "--int8"),
        ("build", "--labels", "nowhere.txt"),
        ("build", "--classes", "1"),
        ("build", "--classes", "0"),
        ("build", "--input-size", "0"),
        ("build", "--mean", "123", "117", "104"),
        ("build", "--std", "0", "1", "1"),
        ("run",),
        ("run", "--camera", "0"),
        ("run", "--jsonl", "-", "--json", "--source", "x.jpg"),
        ("run", "nowhere", "--source", "x.jpg"),
        ("run", "--nonsense"),
        ("eval",),
        ("eval", "--data", "x"),
        ("inspect",),
        ("inspect", "."),
        ("compile", "nowhere"),
    ],
)
def test_bad_words_end_with_two_and_say_what_to_do(cli: Cli, words: tuple[str, ...]) -> None:
    """Every mistake in the arguments is one error line and one hint line, exit code 2, and leaves no file."""
    _assert_one_line_error(cli(*words), 2)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("command", ["run", "deploy", "deploy systemd", "deploy files"])
def test_an_unknown_option_points_to_the_help_of_its_command(cli: Cli, command: str) -> None:
    """The hint names the subcommand, too, whose options are meant."""
    assert f"hint: edge-resnet {command} --help" in cli(*command.split(), "--nonsense").err


def test_no_words_shows_the_help(cli: Cli) -> None:
    """`edge-resnet` alone prints the help and is no error."""
    outcome = cli()
    assert outcome.code == 0
    assert "build" in outcome.out
    assert "--debug" in outcome.out


def test_debug_shows_where_an_error_came_from() -> None:
    """With --debug, at any position, an error ends in a traceback; without it there is none."""
    command = [sys.executable, "-m", "edge_resnet", "inspect", "nowhere"]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "ArtifactError" in debug.stderr


def test_a_missing_package_names_its_extra() -> None:
    """If torch is not installed, the error names the extra that installs it, exit code 1."""
    code = (
        "import sys; sys.argv = ['edge-resnet', 'models']\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from edge_resnet.cli import main\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: this command needs torch", "hint: pip install 'edge-resnet[build]'"]


def test_an_unforeseen_error_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is reported in one line that asks for --debug, exit 1."""

    def broken(*_: object) -> None:
        raise RuntimeError("something\nunforeseen")

    monkeypatch.setattr("edge_resnet.artifact.folder.open_artifact", broken)
    outcome = cli("inspect", "x")
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 2
    assert "--debug" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_missing_package_that_no_extra_brings_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is reported like any other bug, not as a traceback."""

    def broken(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'numpy.core'", name="numpy.core")

    monkeypatch.setattr("edge_resnet.artifact.folder.open_artifact", broken)
    outcome = cli("inspect", "x")
    assert outcome.code == 1
    assert "numpy.core" in outcome.err
    assert "Traceback" not in outcome.err


def test_ctrl_c_ends_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted command says so and ends as shells expect."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_resnet.artifact.folder.open_artifact", interrupted)
    outcome = cli("inspect", "x")
    assert outcome.code == 130
    assert "interrupted" in outcome.err


def test_the_models_fit_eighty_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line per network, the same in a pipe and on any terminal; --json has one record each."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("edge_resnet.network.known_networks", cache(network.known_networks))  # it takes four seconds
    lines = cli("models").out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if re.match(r"(wide_)?resne[tx]", line)]
    assert ["resnet50", "bottleneck", "25.56", "M", "4.089", "G", "3.858", "G", "3.8", "G", "76.1", "80.9"] in rows
    assert [row[0] for row in rows] == [
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *(f"resnet{depth}-cifar" for depth in (20, 32, 44, 56, 110, 1202)),
        *NAMED,
    ]
    assert len(json.loads(cli("models", "--json").out)) == len(rows)


def test_escape_sequences_do_not_reach_the_terminal(cli: Cli, tiny_int8: Path, tmp_path: Path) -> None:
    """Those in a file's name are escaped in errors and in the log, those in a label in what is printed."""
    evil = "\x1b[2J\x9b31m\u202e"
    for arguments in (
        ("run", str(tiny_int8), "--source", f"{tmp_path}/{evil}.jpg"),
        ("inspect", f"{tmp_path}/{evil}"),
        ("build", "--labels", f"{tmp_path}/{evil}"),
    ):
        outcome = cli(*arguments)
        assert outcome.code == 2
        assert "\\x1b[2J\\x9b31m\\u202e" in outcome.err
        assert outcome.err.replace("\n", "").isprintable()
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / f"{evil}.jpg").write_bytes(b"no image")
    Image.new("RGB", (40, 40), "red").save(folder / "z.png")
    outcome = cli("run", str(tiny_int8), "--source", str(folder), "--backend", "onnxruntime")
    assert outcome.code == 0
    assert "WARNING" in outcome.err
    assert (outcome.out + outcome.err).replace("\n", "").isprintable()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_python_ends_is_no_traceback(number: int) -> None:
    """Libraries take a moment to clean up after the command; Ctrl-C then ends the process, silently."""
    program = """if True:
        import atexit, sys, time
        from edge_resnet.cli import main
        atexit.register(lambda: (print("leaving", flush=True), time.sleep(60)))
        sys.argv = ["edge-resnet", "--version"]
        main()"""
    command = [sys.executable, "-c", program]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("edge-resnet ")
        assert process.stdout.readline() == "leaving\n"
        process.send_signal(number)
        _, shown = process.communicate()
    assert (process.returncode, shown) == (-number, "")
