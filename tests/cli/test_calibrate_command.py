"""`edge-resnet calibrate`: collects and assesses images, makes INT8 artifacts, and refuses options that do not go together."""

from __future__ import annotations

import json
import shutil
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

from edge_resnet.cli.options import _RECIPE_HELP
from edge_resnet.core.records import ModelSpec, Preprocess
from edge_resnet.images.imageset import open_images
from edge_resnet.pipelines.build import BuildOptions, build
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


def test_images_are_collected_and_reported(cli: Cli) -> None:
    """The folder holds what the JSON says, it can be calibrated on, and a second run finds it full."""
    result = json.loads(cli("calibrate", "--source", CLIP, "-o", "set", "--count", "6", "--json").out)
    assert (result["folder"], result["saved"], result["total"], result["interrupted"]) == ("set", 6, 6, False)
    assert result["skipped_similar"] > 0
    assert len(open_images("set")) == 6
    again = json.loads(cli("calibrate", "--source", CLIP, "-o", "set", "--count", "6", "--json").out)
    assert (again["saved"], again["total"]) == (0, 6)


def test_the_text_reports_the_images_and_the_next_command(cli: Cli) -> None:
    """Without --json: the numbers, what was skipped, that there are too few, and the next command."""
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
    """A source without a usable image ends with 2 and asks about the light; no folder is made."""
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save("black.png")
    outcome = cli("calibrate", "--source", "black.png", "-o", "set")
    assert outcome.code == 2
    assert "1 black" in outcome.out
    assert "black.png gave no usable image" in outcome.err
    assert not Path("set").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_the_images(tmp_path: Path, number: int) -> None:
    """Ctrl-C and SIGTERM end with 130; the images are kept and reported."""
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
    result = json.loads(out)
    assert result["interrupted"]
    assert abs(result["total"] - len(open_images(tmp_path / "set"))) <= 1
    assert list(tmp_path.glob("set/.*")) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--from-camera", "0", "--source", CLIP, "-o", "x"), ("--from-camera and --source exclude each other", "a second run")),
        (("--source", CLIP), ("need a folder", "-o images/")),
        (("--source", CLIP, "-o", "x", "--every", "1"), ("--every is for cameras",)),
        (("--source", CLIP, "-o", "x", "--count", "0"), ("at least one image",)),
        (("--source", CLIP, "-o", "x", "--min-change", "300"), ("0..255 grey levels",)),
        (("--source", CLIP, "-o", "x", "--seed", "-1"), ("a seed is 0 or more",)),
        (("--source", "nowhere.mp4", "-o", "x"), ("nowhere.mp4 does not exist",)),
        (("--source", "", "-o", "x"), ("the name of the source is empty",)),
        (("--from-camera", "77", "-o", "x"), ("there is no camera /dev/video77", "/dev/video")),
        (("artifacts/a", "--source", CLIP, "-o", "x"), ("an artifact cannot be combined with collecting images", "--calib-data")),
        (("--source", CLIP, "-o", "x", "--sweep"), ("--sweep cannot be combined with collecting images",)),
        (("--source", CLIP, "-o", "x", "--calib-data", "y"), ("--calib-data cannot be combined with collecting images",)),
        (("--source", CLIP, "-o", "x", "--percentile", "99"), ("--percentile cannot be combined with collecting images",)),
        (("--source", CLIP, "-o", "x", "--force"), ("--force cannot be combined with collecting images",)),
        (("artifacts/a", "--count", "3"), ("--count is for collecting images", "--from-camera 0")),
        (("artifacts/a", "--every", "0"), ("--every is for collecting images",)),
    ],
)
def test_invalid_options_for_collecting(cli: Cli, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """Each is one line with a hint, exit 2, and leaves nothing behind."""
    _refused(cli("calibrate", *arguments), *parts)
    assert list(Path.cwd().iterdir()) == []


def test_the_help_names_the_shipped_recipes() -> None:
    """The help of --calib-recipe lists the shipped recipes."""
    assert set(_RECIPE_HELP.split(", or")[0].split(", ")) == {named.name for named in available_recipes()}


@pytest.fixture(scope="module")
def trained(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An FP32 artifact whose weights are a file's."""
    folder = tmp_path_factory.mktemp("trained") / "plain"
    spec = ModelSpec("cifar", 8, "A", classes=10, input_size=32)
    return build(BuildOptions(spec, Preprocess(resize=32, crop=32), "fp32", str(tiny_weights), folder)).folder


@pytest.fixture
def fp32(cli: Cli, trained: Path) -> str:
    """The same artifact in the working folder."""
    return str(shutil.copytree(trained, "artifacts/plain"))


def test_the_sweep_lists_every_method(cli: Cli, fp32: str, images: Path) -> None:
    """A row per method, compared on held-out images; the one that auto would choose is marked, in JSON and text."""
    arguments = ("calibrate", fp32, "--calib-data", str(images), "--sweep", "--calib-images", "48", "--percentile", "99.5")
    result = json.loads(cli(*arguments, "--json").out)
    rows = [(row["recipe"]["method"], row["recipe"]["percentile"]) for row in result["rows"]]
    assert {method for method, _ in rows} == {"max", "percentile", "mse", "entropy"}
    assert ("percentile", 99.5) in rows
    assert {row["images"] for row in result["rows"]} == {12}
    assert all(row["ci95"][0] <= row["agreement"] <= row["ci95"][1] for row in result["rows"])
    lines = cli(*arguments).out.splitlines()
    assert lines[0].startswith("48 images of smooth, 12 of them held out")
    assert len(lines) == 2 + len(rows)
    assert [line.endswith("chosen by auto") for line in lines[2:]].index(True) == result["best"]
    assert sorted(path.name for path in Path("artifacts").iterdir()) == ["plain"]


def test_the_report_says_whether_the_images_suffice(cli: Cli, fp32: str, images: Path) -> None:
    """A row per tensor, the verdict last, warnings on stderr; the JSON contains the same, and nothing else is written."""
    arguments = (
        "calibrate",
        fp32,
        "--calib-data",
        str(images),
        "--calib-report",
        "--calib-images",
        "64",
        "--calib-method",
        "max",
    )
    result = json.loads(cli(*arguments, "--json").out)
    assert (result["artifact"], result["counts"]) == (fp32, [32, 64])
    assert all(row["history"] == sorted(row["history"]) for row in result["tensors"]), "the largest value seen only grows"
    outcome = cli(*arguments)
    lines = outcome.out.splitlines()
    assert {line.split()[0] for line in lines[1:-1]} == {row["tensor"] for row in result["tensors"]}
    assert "from 32 to 64 images" in lines[-1]
    assert [line.removeprefix("warning: ") for line in outcome.err.splitlines()] == result["warnings"]
    assert any("64 calibration images are few" in line for line in result["warnings"])
    assert sorted(path.name for path in Path("artifacts").iterdir()) == ["plain"]


def test_int8_of_an_artifact_without_its_weights(cli: Cli, fp32: str, images: Path) -> None:
    """The newest artifact becomes INT8 with the user's options; other commands read it; the source is never overwritten."""
    before = {path.name: path.read_bytes() for path in Path(fp32).iterdir() if path.is_file()}
    arguments = ("calibrate", "--calib-data", str(images), "--calib-images", "24", "--percentile", "99.9", "--correct", "none")
    outcome = cli(*arguments, "--seed", "5", "-o", "artifacts/quick", "--json")
    made = json.loads(outcome.out)
    assert (made["artifact"], made["precision"]) == ("artifacts/quick", "int8")
    recipe = made["recipe"]
    assert (recipe["method"], recipe["percentile"], recipe["images"], recipe["seed"]) == ("percentile", 99.9, 24, 5)
    assert (recipe["correction"], made["calibration"]) == ("none", "24 images of smooth")
    assert {path.name: path.read_bytes() for path in Path(fp32).iterdir() if path.is_file()} == before
    assert json.loads(cli("eval", "artifacts/quick", "--data", str(images), "--json").out)["images"] == 64
    again = ("calibrate", fp32, *arguments[1:], "-o", "artifacts/quick")
    _refused(cli(*again), "exists already", "--force")
    assert "made artifacts/quick: resnet8-cifar int8" in cli(*again, "--force").out


def test_a_recipe_of_ones_own(cli: Cli, fp32: str, images: Path) -> None:
    """A TOML file names the images beside it and every value; options on the command line override it."""
    Path("mine").mkdir()
    Path("mine/set.npz").write_bytes(images.read_bytes())
    Path("mine/mine.toml").write_text('data = "set.npz"\nmethod = "max"\nimages = 16\ncorrection = "bias"\nexact_input = true\n')
    made = json.loads(cli("calibrate", fp32, "--calib-recipe", "mine/mine.toml", "-o", "a", "--json").out)
    recipe = made["recipe"]
    assert (recipe["method"], recipe["images"], recipe["correction"], recipe["exact_input"]) == ("max", 16, "bias", True)
    changed = ("--calib-recipe", "mine/mine.toml", "--calib-method", "mse", "--calib-images", "20")
    made = json.loads(cli("calibrate", fp32, *changed, "-o", "b", "--json").out)
    assert (made["recipe"]["method"], made["recipe"]["images"], made["recipe"]["correction"]) == ("mse", 20, "bias")


def test_the_way_from_the_camera_to_int8(cli: Cli, fp32: str) -> None:
    """The collected images are calibrated on as the printed command says, with the camera recipe."""
    assert cli("calibrate", "--source", CLIP, "-o", "set", "--count", "12").code == 0
    arguments = ("--calib-recipe", "camera", "--calib-data", "set", "--correct", "none", "-o", "artifacts/mine")
    outcome = cli("calibrate", fp32, *arguments)
    assert outcome.code == 0, outcome.err
    assert "12 images of set" in outcome.out
    assert "fewer than the 256 asked for" in outcome.err


def test_a_budget_is_printed_and_enforced(cli: Cli, fp32: str, images: Path) -> None:
    """A met budget is printed with its interval; labels of another network are refused in advance."""
    arguments = ("calibrate", fp32, "--calib-data", str(images), "--calib-images", "16", "--correct", "none", "-o", "x")
    result = cli(*arguments, "--max-drop", "60", "--val-data", str(images)).out
    assert "budget of 60 points met on 64 images" in result
    assert "95 % interval" in result
    np.savez("other.npz", images=np.load(images)["images"], labels=np.full(64, 10))
    _refused(cli(*arguments, "--force", "--max-drop", "1", "--val-data", "other.npz"), "class 10")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("needs to know what to make", "--sweep")),
        (("--calib-data", "x"), ("needs to know what to make", "-o")),
        (("--sweep", "--calib-report"), ("--sweep and --calib-report exclude each other",)),
        (("--sweep", "-o", "x"), ("--sweep and --output exclude each other",)),
        (("--sweep",), ("no images to calibrate on", "--calib-data")),
        (("-o", "x"), ("no images to calibrate on", "--calib-data")),
        (("--sweep", "--calib-data", "x", "--calib-method", "mse"), ("--calib-method has no meaning with --sweep",)),
        (("--sweep", "--calib-data", "x", "--correct", "none"), ("--correct has no meaning with --sweep",)),
        (("--sweep", "--calib-data", "x", "--force"), ("--force has no meaning with --sweep",)),
        (("--calib-report", "--calib-data", "x", "--max-drop", "1"), ("--max-drop has no meaning with --calib-report",)),
        (("--calib-report", "--calib-data", "x", "--correct", "bias"), ("--correct has no meaning with --calib-report",)),
        (("-o", "x", "--calib-recipe", "camera"), ("camera names no images", "--from-camera")),
        (("-o", "x", "--calib-recipe", "cifar"), ("no recipe is called 'cifar'", "did you mean cifar10?")),
        (("-o", "x", "--calib-data", "nowhere"), ("'nowhere' is neither a path nor a set",)),
        (("-o", "x", "--calib-data", "P", "--seed", "-1"), ("a seed is 0 or more",)),
        (("-o", "x", "--calib-data", "P", "--calib-images", "0"), ("at least one image",)),
        (("-o", "x", "--calib-data", "P", "--calib-method", "max", "--percentile", "99"), ("--percentile has no meaning",)),
        (("-o", "x", "--calib-data", "P", "--max-drop", "1"), ("labelled images", "--val-data")),
        (("-o", "x", "--calib-data", "P", "--val-data", "P"), ("with an accuracy budget", "--max-drop")),
        (("-o", "x", "--calib-data", "P", "--max-drop", "101", "--val-data", "P"), ("0..100",)),
        (("-o", "artifacts/plain", "--calib-data", "P", "--force"), ("is the artifact that is read",)),
        (("--sweep", "--calib-data", "P", "--calib-images", "15"), ("too few to hold some out",)),
    ],
)
def test_invalid_options_for_calibrating(
    cli: Cli, fp32: str, images: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    """Each is one line with a hint, exit 2, and leaves nothing behind."""
    _refused(cli("calibrate", *(str(images) if word == "P" else word for word in arguments)), *parts)
    assert [str(path) for path in Path().glob("*")] + [str(path) for path in Path().glob("artifacts/*")] == ["artifacts", fp32]


def test_nothing_to_calibrate(cli: Cli, images: Path) -> None:
    """Without any artifact, and for a missing one, the error says what is missing."""
    _refused(cli("calibrate", "--calib-data", str(images), "-o", "x"), "no artifact under artifacts/")
    _refused(cli("calibrate", "nowhere", "--calib-data", str(images), "-o", "x"), "no artifact at nowhere")
