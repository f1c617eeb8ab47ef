"""Runs the command line in this process, as its entry point does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edge_resnet.cli import main
from edge_resnet.core.records import ModelSpec
from edge_resnet.network import build_network


@dataclass(frozen=True)
class Outcome:
    """What a command printed and ended with."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]

#: The smallest network of the family: two blocks' worth of everything a larger one has.
TINY = ModelSpec(family="cifar", depth=8, shortcut="A", classes=10, input_size=32)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Cli]:
    """Run `edge-resnet WORDS` in an empty folder; nothing that it raises escapes but the exit code."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["edge-resnet", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return Outcome(int(end.value.code or 0), captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a seeded tiny network as a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(build_network(TINY).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def images(smooth_images: Path) -> Path:
    """Images to calibrate and measure on."""
    return smooth_images
