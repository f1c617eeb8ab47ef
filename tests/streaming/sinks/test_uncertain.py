"""Saved frames: the right ones, not too many, always whole, and continued by the next run."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sinksamples import Seen, files_up_to, predicted, with_image

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.sinks import uncertain
from edge_resnet.streaming.sinks.uncertain import UncertainSink

_UNSURE = Seen(probability=0.3)


def _saved(folder: Path) -> list[int]:
    """Frame numbers of the images, in the order of their names; checks that each has its line, and that there are no other
    files."""
    images = sorted(folder.glob("*.jpg"))
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(
        name for image in images for name in (image.name, f"{image.stem}.json")
    )
    rows = [json.loads(image.with_suffix(".json").read_text()) for image in images]
    assert [row["file"] for row in rows] == [image.name for image in images]
    return [row["frame"] for row in rows]


def test_a_frame_below_the_limit(tmp_path: Path) -> None:
    """It is saved in full size, close to what was captured, with a line that describes it."""
    frame = with_image(5, height=90, width=121)
    with UncertainSink(tmp_path) as sink:
        sink.write(predicted(5, _UNSURE), frame)
    (pixels,) = tmp_path.glob("*.jpg")
    assert pixels.name == "000001_20261125T141502.289Z.jpg"
    image = np.asarray(Image.open(pixels))[..., ::-1]
    assert image.shape == frame.image.shape
    assert np.abs(image.astype(int) - frame.image).mean() < 2
    text = pixels.with_suffix(".json").read_text()
    assert text.endswith("}\n")
    row = json.loads(text)
    assert list(row) == ["file", "source", "frame", "wall_ns", "time", "probability", "top"]
    assert (row["source"], row["frame"], row["time"], row["probability"]) == ("camera:0", 5, "2026-11-25T14:15:02.289Z", 0.3)
    assert [score["label"] for score in row["top"]] == ["tabby", "tabby1", "tabby2"]


def test_only_what_is_below(tmp_path: Path) -> None:
    """The smoothed answer's probability decides, or the best class's if there is none; NaN counts as below."""
    given = [0.1, 0.499, 0.5, 0.9, float("nan")]
    predictions = [predicted(number, Seen(probability=probability)) for number, probability in enumerate(given)]
    raw = [replace(prediction, answer=None, frame=10 + prediction.frame) for prediction in predictions]
    held = replace(predicted(20, _UNSURE), answer=predicted(0, Seen(probability=0.9)).answer)
    with UncertainSink(tmp_path, below=0.5, every_s=0) as sink:
        for prediction in [*predictions, *raw, held]:
            sink.write(prediction, with_image())
    assert _saved(tmp_path) == [0, 1, 4, 10, 11, 14]


def test_one_per_interval(tmp_path: Path) -> None:
    """Of thirty frames per second one is saved per second of capture and source."""
    with UncertainSink(tmp_path, every_s=1.0) as sink:
        for frame in range(75):
            for source in ("camera:0", "camera:1"):
                sink.write(predicted(frame, replace(_UNSURE, source=source)), with_image(source=source))
    assert _saved(tmp_path) == [0, 0, 30, 30, 60, 60]


def test_a_video_is_judged_by_its_own_time(tmp_path: Path) -> None:
    """A video of 30 frames per second that is read at 1000 gives a frame per second of the video, not of the reading."""
    with UncertainSink(tmp_path, every_s=1.0) as sink:
        for number in range(75):
            frame = replace(with_image(number), position_ns=round(number * 1e9 / 30))
            sink.write(predicted(number, _UNSURE, per_second=1000), frame)
    assert _saved(tmp_path) == [0, 30, 60]


@settings(max_examples=15)
@given(st.lists(st.integers(8, 64), min_size=1, max_size=12), st.integers(3000, 9000), st.booleans())
def test_the_newest_are_kept_below_the_limit(
    tmp_path_factory: pytest.TempPathFactory, sides: list[int], max_bytes: int, restarts: bool
) -> None:
    """After each write the folder is below its limit and contains the newest images, also across runs."""
    folder = tmp_path_factory.mktemp("images")
    sink = UncertainSink(folder, every_s=0, max_bytes=max_bytes)
    for number, side in enumerate(sides):
        sink.write(predicted(number, _UNSURE), with_image(number, height=side, width=side))
        assert sum(entry.stat().st_size for entry in folder.iterdir()) <= max_bytes
        saved = _saved(folder)
        assert saved == list(range(number + 1 - len(saved), number + 1))
        assert saved
        if restarts:
            sink.close()
            sink = UncertainSink(folder, every_s=0, max_bytes=max_bytes)
    sink.close()


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    """The second one is refused as long as the first one runs."""
    with UncertainSink(tmp_path) as sink:
        with pytest.raises(ConfigError, match="another run saves frames"):
            UncertainSink(tmp_path)
        sink.write(predicted(0, _UNSURE), with_image())
    UncertainSink(tmp_path).close()
    assert _saved(tmp_path) == [0]


def test_what_is_too_old_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and once a minute while predictions come; the user's own files stay."""
    (tmp_path / "mine.jpg").write_bytes(b"mine")
    with UncertainSink(tmp_path, every_s=0) as sink:
        for number in range(4):
            sink.write(predicted(number, _UNSURE), with_image(number))
    images = sorted(tmp_path.glob("0*.jpg"))
    for age_days, image in zip((3, 1.5, 0.5, 0), images, strict=True):
        os.utime(image, (time.time() - 86_400 * age_days,) * 2)
    os.utime(tmp_path / "mine.jpg", (0, 0))
    sink = UncertainSink(tmp_path, max_days=2)
    assert sorted(path.name for path in tmp_path.glob("0*")) == [
        f"{one.stem}{end}" for one in images[1:] for end in (".jpg", ".json")
    ]
    real = time.time
    monkeypatch.setattr("edge_resnet.streaming.sinks.uncertain.time.time", lambda: real() + 86_400)
    sure = predicted(9, Seen(probability=0.9))
    sink.write(sure, with_image(9))
    assert images[1].exists(), "a minute has not passed"
    monkeypatch.setattr("edge_resnet.streaming.sinks.uncertain._SWEEP_S", 0.0)
    sink.write(sure, with_image(9))
    assert [image.exists() for image in images] == [False, False, True, True]
    assert (tmp_path / "mine.jpg").exists()


def test_no_more_than_needed_is_removed(tmp_path: Path) -> None:
    """If all fit, all stay; if one byte is missing, one is removed."""
    sizes = []
    for limit in (None, 0, -1):
        folder = tmp_path / f"limit{limit}"
        max_bytes = 1 << 30 if limit is None else sizes[0] + limit
        with UncertainSink(folder, every_s=0, max_bytes=max_bytes) as sink:
            for number in range(3):
                sink.write(predicted(number, _UNSURE), with_image(0))
        sizes.append(sum(entry.stat().st_size for entry in folder.iterdir()))
        assert _saved(folder) == ([1, 2] if limit == -1 else [0, 1, 2])


def test_an_image_larger_than_the_limit(tmp_path: Path) -> None:
    """It is refused, and nothing is removed."""
    with UncertainSink(tmp_path, every_s=0, max_bytes=4000) as sink:
        sink.write(predicted(0, _UNSURE), with_image(height=16, width=16))
        with pytest.raises(ConfigError, match="exceeds the limit of 4000 bytes"):
            sink.write(predicted(1, _UNSURE), with_image(height=1000, width=1000))
    assert _saved(tmp_path) == [0]


def test_a_full_disk_is_reported_and_recovered_from(tmp_path: Path) -> None:
    """No incomplete file is left while the disk is full; the next frame is tried at once, and saved when there is space."""
    with UncertainSink(tmp_path, every_s=1.0) as sink:
        for size in (0, 100, 900):
            with files_up_to(size), pytest.raises(ConfigError, match="cannot write"):
                sink.write(predicted(0, _UNSURE), with_image(height=200, width=200))
            assert _saved(tmp_path) == []
        sink.write(predicted(1, _UNSURE), with_image())
    assert _saved(tmp_path) == [1]


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """A board that boots in 1970 continues the numbers, so the oldest image is still removed first."""
    for number, wall_ns in enumerate([10**18, 10**6, 0]):
        with UncertainSink(tmp_path) as sink:
            sink.write(replace(predicted(number, _UNSURE), wall_ns=wall_ns), with_image())
    names = sorted(entry.name for entry in tmp_path.glob("*.jpg"))
    assert names == ["000001_20010909T014640.000Z.jpg", "000002_19700101T000000.001Z.jpg", "000003.jpg"]
    assert _saved(tmp_path) == [0, 1, 2]


def test_what_a_power_cut_left(tmp_path: Path) -> None:
    """Incomplete files of an earlier run are removed; files of the user are neither removed nor counted."""
    with UncertainSink(tmp_path) as sink:
        sink.write(predicted(0, _UNSURE), with_image())
    ours = {entry.name for entry in tmp_path.iterdir()}
    (tmp_path / ".000002_20261125T141502.123Z.json.edge-resnet-0123456789abcdef.part" / "new").mkdir(parents=True)
    (tmp_path / "000002_20261125T141502.123Z.json").write_text("half")
    foreign = {"notes.txt", "cat.jpg", "cat.json", ".000002_x.json.part", "000009_20261125T141502.123Z.jpg"}
    for name in foreign:
        (tmp_path / name).write_bytes(b"x" * 50_000)
    with UncertainSink(tmp_path, max_bytes=20_000) as sink:
        sink.write(predicted(1, _UNSURE), with_image())
    new = {entry.name for entry in tmp_path.iterdir()} - ours - foreign
    assert len(new) == 2
    assert ours | foreign <= {entry.name for entry in tmp_path.iterdir()}


def test_images_taken_away_while_it_runs(tmp_path: Path) -> None:
    """The user may move images away to label them: the sink continues."""
    with UncertainSink(tmp_path, every_s=0, max_bytes=7000) as sink:
        for number in range(12):
            sink.write(predicted(number, _UNSURE), with_image())
            for entry in tmp_path.iterdir() if number % 3 == 0 else ():
                entry.unlink()
    assert _saved(tmp_path) == [10, 11]


def test_many_sources_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image of a folder is a source: the number of remembered sources is limited."""
    monkeypatch.setattr(uncertain, "_SOURCES", 50)
    with UncertainSink(tmp_path, max_bytes=5000) as sink:
        for number in range(70):
            with suppress(ConfigError):
                sink.write(predicted(number, replace(_UNSURE, source=f"{number}.jpg")), with_image(height=2, width=2))
        assert len(sink._saved_ns) == 50


@pytest.mark.parametrize(
    "options", [{"below": 0.0}, {"below": 1.1}, {"every_s": -1.0}, {"every_s": float("nan")}, {"max_bytes": 0}]
)
def test_invalid_options(tmp_path: Path, options: dict[str, Any]) -> None:
    """Refused before a folder is created."""
    with pytest.raises(ConfigError):
        UncertainSink(tmp_path / "new", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    """A file in place of the folder is one line."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="cannot use"):
            UncertainSink(folder)


def test_closing_twice(tmp_path: Path) -> None:
    """close may be called more than once."""
    sink = UncertainSink(tmp_path)
    sink.close()
    sink.close()
    assert list(tmp_path.iterdir()) == []
