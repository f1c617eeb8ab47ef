"""`edge-resnet train`: from images to weights for build; resumed, refused, interrupted."""

from __future__ import annotations

import json
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

Cli = Callable[..., Any]
TINY = ("--family", "cifar", "--depth", "8", "--batch", "32", "--device", "cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Noisy red and blue images in class folders, 40 for training and 16 for testing."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 8)):
        for name, channel in (("blue", 2), ("red", 0)):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (36, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(tmp_path / "set" / part / name / f"{number}.png")
    return tmp_path / "set"


def test_the_printed_build_command_works(cli: Cli, folders: Path) -> None:
    """After training on class folders, the command after `next:` builds an accurate artifact with their names."""
    outcome = cli("train", *TINY, "--data", str(folders), "--epochs", "8", "--batch", "10", "-o", "runs/colours")
    assert outcome.code == 0, outcome.err
    assert "epoch 8/8" in outcome.err
    line = next(line for line in outcome.out.splitlines() if line.startswith("next: "))
    command = shlex.split(line.removeprefix("next: "))
    assert command[:2] == ["edge-resnet", "build"]
    fp32 = [argument for argument in command[2:] if argument != "--int8"]
    built = cli("build", *fp32[: fp32.index("--calib-data")], "--fp32", "-o", "a/colours")
    assert built.code == 0, built.err
    assert Path("a/colours/labels.txt").read_text().split() == ["blue", "red"]
    result = json.loads(cli("eval", "a/colours", "--data", str(folders / "val"), "--json").out)
    trained = json.loads(Path("runs/colours/result.json").read_text())
    assert result["top1"] == pytest.approx(100 - trained["test_error"]) == 100
    assert trained["network"]["classes"] == 2


def test_json_alone_on_stdout(cli: Cli, folders: Path) -> None:
    """--json prints result.json, with the build command."""
    outcome = cli("train", *TINY, "--data", str(folders), "--epochs", "1", "-o", "run", "--json")
    found = json.loads(outcome.out)
    assert found == json.loads(Path("run/result.json").read_text())
    assert {"epochs", "test_error", "options", "machine", "network", "build", "preprocess", "seconds"} <= set(found)


def test_momentum_as_the_paper_has_it(cli: Cli, folders: Path) -> None:
    """Nesterov momentum is the default, can be switched off, and is off without momentum."""
    options = []
    for number, args in enumerate(((), ("--no-nesterov",), ("--momentum", "0"))):
        outcome = cli("train", *TINY, "--data", str(folders), "--epochs", "1", "-o", f"run{number}", "--json", *args)
        options.append(json.loads(outcome.out)["options"])
    assert [(one["momentum"], one["nesterov"]) for one in options] == [(0.9, True), (0.9, False), (0.0, False)]


def test_resume_force_and_neither(cli: Cli, folders: Path) -> None:
    """A second training in the folder is refused, --resume continues it, --force replaces it."""
    args = ("train", *TINY, "--data", str(folders), "-o", "run")
    assert cli(*args, "--epochs", "2", "--max-steps", "1").code == 0
    refused = cli(*args, "--epochs", "2")
    assert refused.code == 2
    assert "--resume" in refused.err
    assert cli(*args, "--epochs", "2", "--resume").code == 0
    assert len(Path("run/log.csv").read_text().splitlines()) == 3
    assert cli(*args, "--epochs", "1", "--force").code == 0
    assert len(Path("run/log.csv").read_text().splitlines()) == 2


def test_fine_tuning_keeps_what_is_frozen(cli: Cli, folders: Path) -> None:
    """From ten classes to two: the head is new, and frozen stages keep the weights of the file."""
    from safetensors.torch import load_file, save_file

    from edge_resnet.core.records import ModelSpec
    from edge_resnet.network import build_network

    save_file(build_network(ModelSpec("cifar", 8, "A", classes=10, input_size=32)).state_dict(), "ten.safetensors")
    args = ("--weights", "ten.safetensors", "--freeze", "layer2", "--epochs", "1", "-o", "run")
    outcome = cli("train", *TINY, "--shortcut", "A", "--data", str(folders), *args)
    assert outcome.code == 0, outcome.err
    before, after = load_file("ten.safetensors"), load_file("run/weights.safetensors")
    assert after["fc.weight"].shape[0] == 2
    assert all((before[key] == after[key]).all() for key in after if key.startswith(("conv1.", "bn1.", "layer1.", "layer2.")))
    assert any((before[key] != after[key]).any() for key in after if key.startswith("layer3."))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data", "absent"), "neither a path nor a set"),
        (("--data", "{set}", "--rate", "0"), "learning rate"),
        (("--data", "{set}", "--rate", "1e30"), "not finite"),
        (("--data", "{set}", "--classes", "1"), "classes"),
        (("--data", "{set}", "--freeze", "layer4", "--weights", "random"), "no stage"),
        (("--data", "{set}", "--family", "imagenet", "--depth", "18", "--input-size", "16"), "too small"),
        (("--data", "{set}/train/red"), "no labels"),
    ],
)
def test_invalid_trainings_are_refused(cli: Cli, folders: Path, args: tuple[str, ...], message: str) -> None:
    """Exit code 2, and a line that says what is wrong."""
    outcome = cli("train", *TINY, *(word.format(set=folders) for word in args), "-o", "run")
    assert outcome.code == 2
    assert message in outcome.err


def test_classes_that_differ_are_named(cli: Cli, folders: Path) -> None:
    """A class folder that is missing in val."""
    (folders / "val" / "red").rename(folders / "val" / "green")
    outcome = cli("train", *TINY, "--data", str(folders))
    assert outcome.code == 2
    assert "red only in train" in outcome.err


def test_one_class_is_too_few(cli: Cli, folders: Path) -> None:
    """A single class folder is refused."""
    for part in ("train", "val"):
        for path in (folders / part / "red").iterdir():
            path.unlink()
        (folders / part / "red").rmdir()
    outcome = cli("train", *TINY, "--data", str(folders))
    assert outcome.code == 2
    assert "are blue" in outcome.err


@pytest.mark.usefixtures("uncollected")
def test_ctrl_c_keeps_the_last_whole_epoch(cli: Cli, folders: Path, tmp_path: Path) -> None:
    """After the first epoch: exit code 130, no traceback, and a checkpoint for --resume."""
    args = ("train", *TINY, "--data", str(folders), "-o", str(tmp_path / "run"))

    def interrupt() -> None:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outcome = cli(*args, "--epochs", "5000")
    thread.join()
    assert outcome.code == 130
    assert "--resume" in outcome.err
    assert "Traceback" not in outcome.err
    lines = len((tmp_path / "run" / "log.csv").read_text().splitlines())
    resumed = cli(*args, "--epochs", f"{lines}", "--resume")
    assert resumed.code == 0, resumed.err


def test_help_has_examples(cli: Cli) -> None:
    """The help shows a complete command."""
    assert "edge-resnet train --family cifar --depth 20" in " ".join(cli("train", "--help").out.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--max-drop", "0.5"), "--max-drop is only for --qat"),
        (("--qat", "absent", "--depth", "20"), "--depth cannot be used with --qat"),
        (("--qat", "absent", "--resume"), "--resume cannot be used with --qat"),
        (("--qat", "absent", "--epochs", "1"), "no artifact at absent"),
    ],
)
def test_options_of_fine_tuning_and_of_training_cannot_be_mixed(cli: Cli, args: tuple[str, ...], message: str) -> None:
    """An option that does not apply is refused by name; the others are passed to fine-tuning."""
    outcome = cli("train", "--data", "digits", *args)
    assert outcome.code == 2
    assert message in outcome.err
