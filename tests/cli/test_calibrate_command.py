"""`edge-resnet calibrate`: pictures are collected, judged, and made into INT8; words that do not go together are refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_resnet.cli.calibrate import _RECIPE
from edge_resnet.imageset import open_images
from edge_resnet.quantization.recipes import available_recipes

Cli = Callable[..., Any]

CLIP = "synthetic://?frames=90&width=160&height=120"


def _refused(outcome: Any, *parts: str) -> None:
    """One error line, one hint line, exit 2; the parts are in them."""
    lines = outcome.err.strip().splitlines()
    assert outcome.code == 2, outcome.err
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], outcome.err
    assert outcome.out == ""
    assert [part for part in parts if part not in outcome.err] == []


def test_pictures_are_collected_and_told(cli: Cli) -> None:
    """The folder holds what the JSON says, it can be calibrated on, and a second run finds it full."""
    told = json.loads(cli("calibrate", "--source", CLIP, "-o", "set", "--count", "6", "--json").out)
    assert (told["folder"], told["saved"], told["total"], told["interrupted"]) == ("set", 6, 6, False)
    assert told["skipped_similar"] > 0
    assert len(open_images("set")) == 6
    again = json.loads(cli("calibrate", "--source", CLIP, "-o", "set", "--count", "6", "--json").out)
    assert (again["saved"], again["total"]) == (0, 6)


def test_people_are_told_what_came_and_what_comes_next(cli: Cli) -> None:
    """Without --json the numbers, what was passed over, that it is too few, and the next command."""
    outcome = cli("calibrate", "--source", CLIP, "-o", "set", "--count", "100", "--min-change", "8")
    assert outcome.code == 0, outcome.err
    first, second, third = outcome.out.splitlines()
    assert first.startswith("set: ")
    assert "like another" in first
    assert "fewer than the 100 asked for" in second
    assert third == "next: edge-resnet calibrate ARTIFACT --calib-data set -o artifacts/NAME"


def test_the_seed_draws(cli: Cli) -> None:
    """Another seed draws other frames of the same source."""
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert cli("calibrate", "--source", CLIP, "-o", name, "--count", "3", "--seed", seed).code == 0
    a, b, c = ([path.read_bytes() for path in sorted(Path(name).iterdir())] for name in "abc")
    assert a == b != c


def test_nothing_but_black_is_an_error(cli: Cli) -> None:
    """A source without a picture worth keeping ends with 2 and asks about the light; no folder is made."""
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save("black.png")
    outcome = cli("calibrate", "--source", "black.png", "-o", "set")
    assert outcome.code == 2
    assert "1 black" in outcome.out
    assert "black.png gave no picture worth keeping" in outcome.err
    assert not Path("set").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_the_pictures(tmp_path: Path, number: int) -> None:
    """Ctrl-C and SIGTERM end with 130; the pictures stay whole and are told of."""
    command = [*(sys.executable, "-m", "edge_resnet", "calibrate"), *("--source", "synthetic://?frames=0", "-o", "set")]
    process = subprocess.Popen(
        [*command, "--count", "90000", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(list(tmp_path.glob("set/*.jpg"))) < 3:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err == "error: interrupted\n"
    told = json.loads(out)
    assert told["interrupted"]
    assert abs(told["total"] - len(open_images(tmp_path / "set"))) <= 1
    assert list(tmp_path.glob("set/.*")) == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--from-camera", "0", "--source", CLIP, "-o", "x"), ("--from-camera and --source exclude each other", "a second run")),
        (("--source", CLIP), ("need a folder", "-o pictures/")),
        (("--source", CLIP, "-o", "x", "--every", "1"), ("--every is for cameras",)),
        (("--source", CLIP, "-o", "x", "--count", "0"), ("at least one picture",)),
        (("--source", CLIP, "-o", "x", "--min-change", "300"), ("0..255 grey levels",)),
        (("--source", CLIP, "-o", "x", "--seed", "-1"), ("a seed is 0 or more",)),
        (("--source", "nowhere.mp4", "-o", "x"), ("nowhere.mp4 does not exist",)),
        (("--source", "", "-o", "x"), ("the source has no name",)),
        (("--from-camera", "77", "-o", "x"), ("camera 77 gives no frames", "/dev/video")),
        (("artifacts/a", "--source", CLIP, "-o", "x"), ("an artifact does not go with collecting", "--calib-data")),
        (("--source", CLIP, "-o", "x", "--sweep"), ("--sweep does not go with collecting",)),
        (("--source", CLIP, "-o", "x", "--calib-data", "y"), ("--calib-data does not go with collecting",)),
        (("--source", CLIP, "-o", "x", "--percentile", "99"), ("--percentile does not go with collecting",)),
        (("--source", CLIP, "-o", "x", "--force"), ("--force does not go with collecting",)),
        (("artifacts/a", "--count", "3"), ("--count is for collecting pictures", "--from-camera 0")),
        (("artifacts/a", "--every", "0"), ("--every is for collecting pictures",)),
    ],
)
def test_collecting_words_that_make_no_sense(cli: Cli, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """Each is one line with a remedy, exit 2, and leaves nothing behind."""
    _refused(cli("calibrate", *words), *parts)
    assert list(Path.cwd().iterdir()) == []


def test_the_help_names_the_recipes_there_are() -> None:
    """What --calib-recipe offers in its help is what ships."""
    assert [named.name for named in available_recipes() if named.name not in _RECIPE] == []
    assert set(_RECIPE.split(", or")[0].split(", ")) == {named.name for named in available_recipes()}
