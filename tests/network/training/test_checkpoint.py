"""A damaged checkpoint is refused with a hint; a full disk prevents checkpoints but does not stop the training."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from littlenet import PREPROCESS, QUICK, little_net, stripes, stripes_data
from safetensors import safe_open

from edge_resnet.core.errors import BuildError, ConfigError, EdgeResnetError, WeightsError
from edge_resnet.network.training import TrainData, checkpoint, fit

NAME = "checkpoint.safetensors"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder of a training with one of four epochs done."""
    fit(little_net(), stripes_data(), dataclasses.replace(QUICK, max_steps=6), folder=tmp_path)
    return tmp_path


def go_on(folder: Path, **changes: Any) -> None:
    fit(little_net(), stripes_data(), dataclasses.replace(QUICK, **changes), folder=folder, resume=True)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(trained: Path, share: float) -> None:
    """Wherever it ends, the error has the file and a hint."""
    content = (trained / NAME).read_bytes()
    (trained / NAME).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="damaged") as caught:
        go_on(trained)
    assert "restart" in caught.value.hint


def test_another_safetensors_file_is_not_a_checkpoint(trained: Path) -> None:
    """A valid file without the state of a training is refused."""
    (trained / NAME).write_bytes((trained / "weights.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="not a checkpoint"):
        go_on(trained)


def test_another_networks_checkpoint_is_refused(trained: Path) -> None:
    """The error names the first tensor that differs, with both shapes."""
    with pytest.raises(WeightsError, match=r"another network: fc.weight is \(4, 16\) there, \(7, 16\) here"):
        fit(little_net(7), stripes_data(), QUICK, folder=trained, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"batch": 32}, "batch 16, not 32"), ({"seed": 4}, "seed 0, not 4"), ({"schedule": "cosine"}, "schedule one-cycle")],
)
def test_options_that_affect_past_steps_are_refused(trained: Path, changes: dict[str, Any], message: str) -> None:
    """The error has the old and the new value."""
    with pytest.raises(ConfigError, match=message):
        go_on(trained, **changes)


def test_more_epochs_and_other_tests_are_allowed(trained: Path) -> None:
    """They affect the duration and the tests only."""
    go_on(trained, epochs=5, test_every=2, patience=40, keep="best")
    assert len((trained / "log.csv").read_text().splitlines()) == 6


def test_other_images_are_refused(trained: Path) -> None:
    """A set of another size cannot resume a training."""
    with pytest.raises(ConfigError, match="96 images, not on stripes, 80 images"):
        fit(little_net(), TrainData(stripes(80), None, PREPROCESS), QUICK, folder=trained, resume=True)


def test_nothing_in_a_checkpoint_is_executed(trained: Path) -> None:
    """It is a safetensors file: tensors, and JSON that describes them."""
    with safe_open(trained / NAME, framework="pt") as file:
        notes = json.loads(file.metadata()["edge-resnet"])
        groups = {name.partition("/")[0] for name in file.keys()}  # noqa: SIM118 - no mapping
    assert groups == {"network", "momentum"}
    assert (notes["schema"], notes["options"]["batch"]) == (1, 16)


def test_a_full_disk_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If nothing can be written from the second epoch on, there is one warning, and the first checkpoint remains.

    The training continues to its end, where the missing weights are an error with a hint; with space again, resuming writes
    them without training.
    """
    real, full = checkpoint.save_file, [False]

    def limited(tensors: Any, path: Path, metadata: Any) -> None:
        if full[0]:
            Path(path).write_bytes(b"part")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoint, "save_file", limited)
    steps: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        steps.append(done)
        full[0] = done > 6

    with caplog.at_level(logging.WARNING), pytest.raises(BuildError, match="No space left") as caught:
        fit(little_net(), stripes_data(), QUICK, folder=tmp_path, progress=progress)
    assert "--resume" in caught.value.hint
    assert steps[-1] == 24
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "epoch 2" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "log.csv"]
    full[0] = False
    go_on(tmp_path)
    assert (tmp_path / "weights.safetensors").is_file()


def test_files_are_readable_by_others(trained: Path) -> None:
    """All have the mode of a new file, not the private one that safetensors uses."""
    (trained / "usual").touch()
    modes = {path.name: path.stat().st_mode for path in trained.iterdir()}
    assert set(modes.values()) == {modes["usual"]}


def test_a_folder_instead_of_a_checkpoint(tmp_path: Path) -> None:
    """It is an EdgeResnetError with a hint."""
    (tmp_path / NAME).mkdir()
    with pytest.raises(EdgeResnetError) as caught:
        go_on(tmp_path)
    assert caught.value.hint
