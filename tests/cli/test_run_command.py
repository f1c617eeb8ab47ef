"""``run`` as a user types it: what it refuses, what it writes to each output, and a full disk."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from refusals import assert_refused

from edge_resnet.artifact.folder import LABELS, Artifact, open_artifact, write_manifest

Cli = Callable[..., Any]
SOURCE = ("--source", "synthetic://?frames=40&width=64&height=48")


@pytest.fixture
def artifact(tiny_artifacts: dict[str, Artifact]) -> str:
    return str(tiny_artifacts["int8"].folder)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("run needs a source", "--camera 0")),
        ((*SOURCE, "--roi", "1,2"), ("four whole numbers", "--roi")),
        ((*SOURCE, "--roi", "60,40,64,48"), ("is not inside a frame of 64x48", "--roi")),
        ((*SOURCE, "--roi", "0,0,0,5"), ("region", "--roi")),
        ((*SOURCE, "--rate", "0"), ("above 0", "--rate")),
        ((*SOURCE, "--duration", "nan"), ("above 0", "--duration")),
        ((*SOURCE, "--smooth", "vote", "--smooth-frames", "0"), ("at least 1 frame", "10")),
        ((*SOURCE, "--hysteresis", "1.5"), ("0..1", "hysteresis")),
        ((*SOURCE, "--min-confidence", "-1"), ("0..1", "min confidence")),
        ((*SOURCE, "--jsonl", "-", "--json"), ("both write to stdout", "--jsonl FILE")),
        ((*SOURCE, "--jsonl-append"), ("need a file", "--jsonl FILE")),
        ((*SOURCE, "--jsonl", "-", "--jsonl-max", "1"), ("need a file", "--jsonl FILE")),
        ((*SOURCE, "--web", "0.0.0.0:0"), ("no token", "--web-token")),
        ((*SOURCE, "--web", "nonsense"), ("HOST:PORT", "127.0.0.1")),
        ((*SOURCE, "--web", "127.0.0.1:0", "--web-origin", "cam.example"), ("scheme and host", "https://cam.example")),
        ((*SOURCE, "--web", "127.0.0.1:0", "--web-origin", "https://cam.example"), ("no token", "--web-token")),
        ((*SOURCE, "--web-origin", "https://cam.example"), ("without --web", "--web HOST:PORT")),
        ((*SOURCE, "--mqtt", "mqtt://host"), ("MQTT", "mqtt://")),
        ((*SOURCE, "--save-video", "x.gif"), ("suffix", ".mkv")),
        ((*SOURCE, "--record-uncertain", "d", "--uncertain-below", "2"), ("(0, 1]", "0.5")),
        (("--source", "rtsp://a b/c"), ("space", "%20")),
        (("--source", "gopher://x"), ("there is no source with the scheme", "rtsp")),
        (("--source", "csi://0"), ("GStreamer", "python3-opencv")),
        (("--camera", "77"), ("/dev/video77", "plugged in")),
    ],
)
def test_invalid_options_are_one_line(cli: Cli, artifact: str, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """An error with a hint, exit code 2, and no file is left behind."""
    assert_refused(cli("run", artifact, *arguments), *parts)


def test_the_first_line_shows_hostile_labels_as_text(cli: Cli, tiny_int8: Path) -> None:
    """A label cannot steer the terminal from there either."""
    artifact = open_artifact(tiny_int8)
    (tiny_int8 / LABELS).write_text("".join(f"\x1b]0;title\x07\u202e{index}\n" for index in range(10)), encoding="utf-8")
    write_manifest(tiny_int8, artifact.manifest)
    outcome = cli("run", str(tiny_int8), *SOURCE, "--headless", "--frames", "2", "--backend", "onnxruntime")
    assert outcome.code == 0
    assert "(\\x1b]0;title\\x07\\u202e0, " in outcome.err.splitlines()[0]
    assert outcome.err.replace("\n", "").isprintable()


@pytest.mark.parametrize("how", ["headless", "json", "newest"])
def test_the_first_line_on_stderr_says_what_runs(cli: Cli, tiny_int8: Path, tmp_path: Path, how: str) -> None:
    """Artifact, network, precision, backend and classes, before anything else and whatever is written to stdout."""
    named = [str(tiny_int8)]
    if how == "newest":
        (tmp_path / "artifacts").mkdir()
        tiny_int8.rename(tmp_path / "artifacts" / "tiny")
        named = []
    outcome = cli(
        "run", *named, *SOURCE, "--json" if how == "json" else "--headless", "--frames", "2", "--backend", "onnxruntime"
    )
    which = "artifacts/tiny (the newest)" if how == "newest" else str(tiny_int8)
    expected = f"{which}: resnet8-cifar int8 on onnxruntime, 10 classes (airplane, automobile, bird, …)"
    assert (outcome.code, outcome.err.splitlines()[0]) == (0, expected)
    assert expected not in outcome.out


def test_every_output_at_once(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """JSON lines, recording, uncertain frames and the JSON summary agree."""
    arguments = ("--jsonl", "out.jsonl", "--save-video", "out.mkv", "--record-uncertain", "unclear", "--uncertain-below", "1")
    summary = json.loads(cli("run", artifact, *SOURCE, *arguments, "--json").out)
    assert (summary["frames"], summary["read"], summary["dropped"], summary["lost"]) == (40, 40, 0, {})
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(40))
    assert all(row["answer"]["label"] == row["top"][0]["label"] for row in rows)
    assert rows[0]["answer"]["changed"] is True
    assert (tmp_path / "out.mkv").stat().st_size > 1000
    assert list((tmp_path / "unclear").glob("*.jpg"))


def test_only_changes_are_written(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """With a confidence that no class reaches, the answer is unknown from the first frame on: one line."""
    arguments = ("--min-confidence", "0.99", "--on-change", "--jsonl", "out.jsonl", "--headless")
    assert cli("run", artifact, *SOURCE, *arguments).code == 0
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (row["answer"]["label"], row["answer"]["class_index"], row["answer"]["changed"]) == ("unknown", -1, True)


def test_the_part_that_is_classified(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """A region changes the probabilities; the whole frame as region does not."""

    def first(name: str, *arguments: str) -> float:
        cli("run", artifact, *SOURCE, "--frames", "1", "--jsonl", name, "--headless", *arguments)
        return float(json.loads((tmp_path / name).read_text())["top"][0]["probability"])

    whole = first("whole.jsonl")
    assert first("same.jsonl", "--roi", "0,0,64,48") == whole
    assert first("part.jsonl", "--roi", "10,10,20,20") != whole


def test_a_duration_ends_an_endless_source(cli: Cli, artifact: str) -> None:
    """The summary does not say interrupted."""
    summary = json.loads(cli("run", artifact, "--source", "synthetic://?frames=0&fps=50", "--duration", "0.5", "--json").out)
    assert 0.4 < summary["seconds"] < 60
    assert summary["interrupted"] is False
    assert summary["read"] == summary["frames"] + summary["dropped"]


def test_appending_continues_the_file(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """A second run adds its lines, and without the option it replaces them."""
    for arguments, count in (((), 40), (("--jsonl-append",), 80), ((), 40)):
        cli("run", artifact, *SOURCE, "--jsonl", "out.jsonl", "--headless", *arguments)
        assert len((tmp_path / "out.jsonl").read_text().splitlines()) == count


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let tests mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_does_not_end_the_run(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """Every frame is predicted; lines that were not written are counted and reported, the others are whole, and the exit code is
    1."""
    with small_disk(tmp_path / "disk", 64) as disk:
        frames = "synthetic://?frames=400&width=64&height=48"
        outcome = cli("run", artifact, "--source", frames, "--jsonl", str(disk / "out.jsonl"), "--json")
        summary = json.loads(outcome.out)
        rows = [json.loads(line) for line in (disk / "out.jsonl").read_text().splitlines()]
    assert outcome.code == 1
    assert summary["frames"] == 400
    assert 0 < len(rows) == 400 - summary["lost"]["jsonl"]
    assert "No space left" in outcome.err
    assert f"jsonl did not take {summary['lost']['jsonl']} predictions" in outcome.err
