"""`edge-resnet paper`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from refusals import assert_refused

from edge_resnet.cli.paper import _print_table, paper
from edge_resnet.studies.paper import EXPERIMENTS, TRAINING
from edge_resnet.studies.paper.result import Column, Table

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def set_of_three(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Thirty images of 16 x 16 pixels in ten classes."""
    path = tmp_path_factory.mktemp("set") / "set.npz"
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(30) % 10)
    return str(path)


def small(data: str, *args: str) -> tuple[str, ...]:
    return ("paper", "degradation", "--data", data, "--test-data", data, "--input-size", "16", "--batch", "10", *args)


def test_every_experiment_can_be_named() -> None:
    """The choices of the command are the experiments; the first three train, as the help says."""
    named = get_args(get_args(get_type_hints(paper, include_extras=True)["experiment"])[0])
    assert named == tuple(EXPERIMENTS)
    assert named[:3] == TRAINING


def test_the_help_shows_each_kind_of_use() -> None:
    """The help has examples of training, of networks trained before, and of given weights."""
    text = inspect.getdoc(paper) or ""
    assert all(word in text for word in ("--depths 20,56", "--from", "--weights 50=default", "--resume"))


def test_a_small_degradation(cli: Cli, set_of_three: str) -> None:
    """Prints a line per network, the verdicts, the differences and the page; a second run is refused, a resumed one is equal."""
    args = small(set_of_three, "--depths", "8,14", "--epochs", "1")
    outcome = cli(*args)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("plain-", "ResNet-")) and "'s" not in line] == [
        "plain-8",
        "ResNet-8",
        "plain-14",
        "ResNet-14",
    ]
    assert "differs from the paper: epochs: 1 (the paper: 164)" in lines
    assert lines[-1] == "the page is at paper/degradation/index.html"
    assert Path("paper/degradation/index.html").is_file()
    assert_refused(cli(*args), "already contains an experiment", "--resume")
    assert_refused(cli(*args, "--resume", "--seed", "1"), "another seed")
    assert cli(*args, "--resume").out == outcome.out


def test_tables_are_aligned_and_fit_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers are aligned to the right, brackets are no markup, and long cells are wrapped."""
    columns = (Column("network", "network"), Column("error, %", "error", 2), Column("paper", "paper"))
    _print_table(Table("", columns, (("ResNet-8", 12.3456, None), ("ResNet-14", 1234.5, "8.75 [a long note] " * 9))))
    lines = capsys.readouterr().out.splitlines()
    texts = ("error, %", "12.35", "1,234.50")
    assert len({line.index(text) + len(text) for line, text in zip(lines, texts, strict=False)}) == 1
    assert lines[1].split() == ["ResNet-8", "12.35", "-"]
    assert "[a long note]" in lines[2]
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)


def test_json_alone(cli: Cli, set_of_three: str, tiny_weights: Path) -> None:
    """--json prints the content of the file and nothing else."""
    args = ("paper", "responses", "--weights", f"8={tiny_weights}", "--data", set_of_three, "--json", "-o", "out")
    outcome = cli(*args)
    assert outcome.code == 0, outcome.err
    printed, written = json.loads(outcome.out), json.loads(Path("out/responses.json").read_text(encoding="utf-8"))
    assert {**printed, "created": ""} == {**written, "created": ""}
    assert printed["kind"] == "edge-resnet paper"
    assert len(printed["data"]["networks"][0]["deviations"]) == 7


def test_interrupted(cli: Cli, set_of_three: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130; the results so far are printed, written, and marked as incomplete."""
    from edge_resnet.studies.paper import training

    real, calls = training.fit, []

    def interrupting(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(training, "fit", interrupting)
    outcome = cli(*small(set_of_three, "--depths", "8,14", "--epochs", "1"))
    assert outcome.code == 130
    assert "(incomplete: interrupted)" in outcome.out
    assert json.loads(Path("paper/degradation/degradation.json").read_text(encoding="utf-8"))["interrupted"] is True


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("widths",), "widths"),
        (("complexity", "--epochs", "3"), "trains nothing"),
        (("complexity", "--resume"), "trains nothing"),
        (("degradation", "--depths", "8,x"), "--depths"),
        (("multiscale", "--scales", "224;256"), "--scales"),
        (("degradation", "--depths", "8,14"), "no train images"),
        (("degradation", "--epochs", "0", "--depths", "8,14"), "epochs"),
        (("depth", "--family", "imagenet"), "table 6"),
        (("ensemble", "--data", "digits"), "no weights"),
        (("responses", "--from", "nowhere", "--data", "digits"), "nowhere"),
    ],
)
def test_what_is_refused(cli: Cli, args: tuple[str, ...], message: str) -> None:
    """One error line, one hint line, exit code 2, and no folder."""
    assert_refused(cli("paper", *args), message)
    assert not Path("paper").exists() or not any(Path("paper").iterdir())


def test_weights_of_another_depth(cli: Cli, tiny_weights: Path, set_of_three: str) -> None:
    """The hint says which depth the file fits."""
    outcome = cli("paper", "responses", "--weights", f"14={tiny_weights}", "--data", set_of_three)
    assert_refused(outcome, "do not fit", "--depth 8")


def test_a_file_in_the_way(cli: Cli) -> None:
    """An output that is a file is refused before any work."""
    Path("out").write_text("mine", encoding="utf-8")
    assert_refused(cli("paper", "complexity", "-o", "out"), "out is a file")
    assert Path("out").read_text(encoding="utf-8") == "mine"
