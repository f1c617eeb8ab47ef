"""`edge-resnet build` and `compile`, `inspect`, `eval` on what it built: all steps on a tiny network."""

from __future__ import annotations

import json
import os
import pickle
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
from children import started

Cli = Callable[..., Any]
TINY = ("--family", "cifar", "--depth", "8", "--shortcut", "A")


@pytest.fixture
def built(once: Callable[..., Path], cli: Cli, tiny_weights: Path, images: Path, tmp_path: Path) -> Path:
    """A copy of an INT8 artifact that the command made once, as it does by default: with everything learned."""

    def fill(folder: Path) -> None:
        words = ("--weights", str(tiny_weights), "--calib-data", str(images), "-o", str(folder / "tiny"))
        outcome = cli("build", *TINY, "--int8", *words)
        assert outcome.code == 0, outcome.err

    shutil.copytree(once("built-by-command", fill), tmp_path / "a")
    return Path("a/tiny")


def test_build_compile_inspect_eval_run(cli: Cli, built: Path, images: Path) -> None:
    """Every other command reads what build makes; their --json parses and has the documented keys."""
    inspected = json.loads(cli("inspect", str(built), "--json", "--ranges").out)
    assert inspected["precision"] == "int8"
    assert inspected["ranges"]
    assert len(inspected["engines"]) == 1
    compiled = json.loads(cli("compile", str(built), "--simulate-int8", "--json").out)
    assert len(compiled["engines"]) == 2
    result = json.loads(cli("eval", str(built), "--data", str(images), "--simulate-int8", "--json").out)
    assert {"images", "top1", "top5", "ci95", "agreement", "backend", "precision", "simulated"} <= set(result)
    assert (result["images"], result["simulated"]) == (64, True)
    summary = json.loads(cli("run", str(built), "--source", "synthetic://?frames=7", "--jsonl", "f.jsonl", "--json").out)
    assert summary["frames"] == len(Path("f.jsonl").read_text().splitlines()) == 7


def test_texts_for_people(cli: Cli, built: Path, images: Path) -> None:
    """Without --json the same commands print lines that name what was measured."""
    assert "calibration 64 images of smooth" in " ".join(cli("inspect", str(built)).out.split())
    assert "top-1" in cli("eval", str(built), "--data", str(images)).out
    assert "engine: " in cli("compile", str(built)).out
    run = cli("run", str(built), "--source", "synthetic://?frames=3")
    assert "synthetic #0" in run.out
    assert "3 frames" in run.err


def test_the_newest_artifact_is_taken(cli: Cli, tiny_weights: Path) -> None:
    """Without a name, build puts the artifact under artifacts/ and run finds it there."""
    assert cli("build", *TINY, "--fp32", "--weights", str(tiny_weights)).code == 0
    assert Path("artifacts/resnet8-cifar-fp32/manifest.json").is_file()
    assert cli("run", "--source", "synthetic://?frames=2", "--headless").code == 0


def test_the_build_prints_its_manifest_as_json(cli: Cli, tiny_weights: Path) -> None:
    """--json on build: stdout is the manifest alone."""
    outcome = cli("build", *TINY, "--fp16", "--weights", str(tiny_weights), "--batch", "1,4,8", "-o", "x", "--json")
    manifest = json.loads(outcome.out)
    assert manifest["precision"] == "fp16"
    assert manifest["batch"] == {"min": 1, "opt": 4, "max": 8}
    assert manifest["model"]["weights"].startswith("sha256:")


def test_own_head_and_labels(cli: Cli, tmp_path: Path) -> None:
    """--labels sets the number of classes, and predictions have these names."""
    names = tmp_path / "names.txt"
    names.write_text("ripe\nunripe\nrotten\n", encoding="utf-8")
    assert cli("build", *TINY, "--fp32", "--weights", "random", "--labels", str(names), "-o", "x").code == 0
    assert cli("run", "x", "--source", "synthetic://?frames=1", "--headless", "--jsonl", "f.jsonl").code == 0
    top = json.loads(Path("f.jsonl").read_text())["top"]
    assert {score["label"] for score in top} == {"ripe", "unripe", "rotten"}


def test_an_existing_folder_is_kept(cli: Cli, built: Path, tiny_weights: Path) -> None:
    """A second build into the same folder is refused without --force, and replaces it with it."""
    arguments = ("build", *TINY, "--fp32", "--weights", str(tiny_weights), "-o", str(built))
    before = (built / "manifest.json").read_bytes()
    refused = cli(*arguments)
    assert refused.code == 2
    assert "--force" in refused.err
    assert (built / "manifest.json").read_bytes() == before
    assert cli(*arguments, "--force").code == 0
    assert json.loads((built / "manifest.json").read_text())["precision"] == "fp32"


def _evil(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {path.parent / 'pwned'}",)

    path.write_bytes(pickle.dumps(Evil()))


def _truncated(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(100))


@pytest.mark.parametrize("spoil", [_evil, _truncated, lambda path: path.write_bytes(b""), lambda path: path.mkdir()])
def test_bad_weights(cli: Cli, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Truncated, empty, foreign and malicious weights are one line, exit 2; no code runs, no folder is left."""
    weights = tmp_path / "w.pth"
    spoil(weights)
    outcome = cli("build", *TINY, "--fp32", "--weights", str(weights), "-o", "out/x")
    assert outcome.code == 2
    assert outcome.err.count("error: ") == outcome.err.count("hint: ") == 1
    assert len(outcome.err.strip().splitlines()) == 2
    assert not (tmp_path / "pwned").exists()
    assert list((tmp_path / "out").glob("*")) == []


def test_weights_of_another_depth(cli: Cli, tiny_weights: Path) -> None:
    """The wrong depth names the first key that does not fit and the depth that would."""
    outcome = cli("build", "--family", "cifar", "--depth", "14", "--shortcut", "A", "--weights", str(tiny_weights), "--fp32")
    assert outcome.code == 2
    assert "layer1.1.conv1.weight is missing" in outcome.err
    assert "--depth 8" in outcome.err


def test_no_network_for_default_weights(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a network the error names the URL, the path in the cache and --weights."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(
        "edge_resnet.network.weights.default_address", lambda *_: ("http://127.0.0.1:9/resnet50-01234567.pth", "01234567")
    )
    outcome = cli("build", "--depth", "50", "--fp32")
    assert outcome.code == 2
    for part in ("http://127.0.0.1:9/resnet50-01234567.pth", str(tmp_path / "hub"), "--weights"):
        assert part in outcome.err


def _noise(path: Path) -> str:
    np.savez(path / "noise.npz", images=np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    return "noise.npz"


def _empty(path: Path) -> str:
    (path / "empty").mkdir()
    return "empty"


def _words(path: Path) -> str:
    (path / "words").mkdir()
    for index in range(3):
        (path / "words" / f"{index}.jpg").write_text("no image")
    return "words"


def _single(path: Path) -> str:
    np.savez(path / "one.npz", images=np.full((1, 32, 32, 3), 7, np.uint8))
    return "one.npz"


@pytest.mark.parametrize("data", [_noise, _empty, _words, _single, lambda _: "nowhere"])
def test_bad_calibration_data(cli: Cli, tmp_path: Path, tiny_weights: Path, data: Callable[[Path], str]) -> None:
    """Noise, nothing, no images, one image, no such path: exit 2 with a hint, nothing written."""
    outcome = cli(
        "build", *TINY, "--int8", "--weights", str(tiny_weights), "--calib-data", data(tmp_path), "-o", "out/x"
    )  # fmt: skip
    assert outcome.code == 2, outcome.err
    assert outcome.err.count("error: ") == outcome.err.count("hint: ") == 1
    assert list((tmp_path / "out").glob("*")) == []


def test_random_weights_are_not_calibrated_nor_measured(cli: Cli, images: Path) -> None:
    """INT8 and accuracy of an untrained network are refused unless explicitly allowed."""
    arguments = ("build", *TINY, "--int8", "--weights", "random", "--calib-data", str(images), "-o", "x")
    assert cli(*arguments).code == 2
    assert cli(*arguments, "--allow-random", "--correct", "none").code == 0
    assert cli("eval", "x", "--data", str(images)).code == 2
    assert cli("eval", "x", "--data", str(images), "--allow-random").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_build_that_is_interrupted_leaves_nothing(tmp_path: Path, tiny_weights: Path, images: Path, number: int) -> None:
    """Ctrl-C and SIGTERM during the build: exit 130, no artifact, no temporary folder."""
    command = [
        *(sys.executable, "-m", "edge_resnet", "build", "--family", "cifar", "--depth", "110", "--shortcut", "B", "--int8"),
        *("--weights", "random", "--allow-random", "--calib-data", str(images), "-o", "out/x"),
    ]
    with started(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(tmp_path.glob("out/.x.*")):
            time.sleep(0.01)
        assert process.poll() is None, "the build was over before it could be interrupted"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list(tmp_path.glob("out/*")) + list(tmp_path.glob("out/.*")) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fp32", "--device", "cpu"), "--device is where INT8 learns"),
        (("--int8", "--device", "cuda"), "torch finds no GPU"),
        (("--int8", "--device", "tpu"), "there is no device 'tpu'"),
    ],
)
def test_a_device_is_for_int8_and_must_be_there(
    cli: Cli, tiny_weights: Path, images: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], says: str
) -> None:
    """--device without --int8 is refused, and so is a device that torch does not have, before anything is written."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    data = () if "--fp32" in options else ("--calib-data", str(images))
    outcome = cli("build", *TINY, *options, *data, "--weights", str(tiny_weights), "-o", "out/x")
    assert outcome.code == 2
    assert says in outcome.err
    assert outcome.err.count("hint: ") == 1
    assert not Path("out").exists()
