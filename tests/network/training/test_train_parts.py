"""Parts of a training: log, weight average, test, and the choice of precision."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from littlenet import PREPROCESS, QUICK, little_net, same, stripes, stripes_data
from torch.nn import functional as F

from edge_resnet.core.errors import MissingDependencyError
from edge_resnet.network.training import epoch, fit, score
from edge_resnet.network.training.epoch import WeightAverage, uses_bf16
from edge_resnet.network.training.log import read_log
from edge_resnet.network.training.validation import normalise

CPU = torch.device("cpu")


def test_log_and_result_say_what_was_done(tmp_path: Path) -> None:
    """log.csv is read back as the records; result.json has the options, the results and the versions."""
    options = dataclasses.replace(QUICK, test_every=2)
    result = fit(little_net(), stripes_data(), options, folder=tmp_path)
    assert read_log(tmp_path) == result.records
    assert read_log(tmp_path)[0].test_loss is None
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["options"] == dataclasses.asdict(options)
    assert written["test_error"] == result.records[-1].test_error
    assert (written["epochs"], written["steps"], written["stopped"]) == (4, 24, None)
    assert written["class_names"] == ["upright", "level", "falling", "rising"]
    assert written["preprocess"]["crop"] == 16
    assert written["machine"]["torch"] == torch.__version__
    assert written["seconds"] > 0


def test_tensorboard_gets_every_epoch(tmp_path: Path) -> None:
    """The event file has the losses of log.csv at their steps."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = fit(little_net(), stripes_data(), dataclasses.replace(QUICK, tensorboard=True), folder=tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = [(point.step, point.value) for point in events.Scalars("train/loss")]
    assert points == [(record.step, pytest.approx(record.train_loss)) for record in result.records]
    assert len(events.Scalars("test/error")) == 4


def test_missing_tensorboard_is_an_error_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is the command that installs it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError) as caught:
        fit(little_net(), stripes_data(), dataclasses.replace(QUICK, tensorboard=True), folder=tmp_path)
    assert "edge-resnet[train]" in caught.value.hint


def test_an_average_follows_weights_and_statistics() -> None:
    """After one step the average is that of the formula, including buffers; counters are copied."""
    network = little_net()
    average = WeightAverage(network, 0.9)
    with torch.no_grad():
        network.fc.weight.add_(1.0)
        assert network.bn1.running_mean is not None
        assert network.bn1.num_batches_tracked is not None
        network.bn1.running_mean.add_(2.0)
        network.bn1.num_batches_tracked.add_(5)
    average.update(network, 10_000)
    moved = average.network.state_dict()
    torch.testing.assert_close(moved["fc.weight"], little_net().fc.weight.detach() + 0.1)
    torch.testing.assert_close(moved["bn1.running_mean"], torch.full((8,), 0.2))
    assert int(moved["bn1.num_batches_tracked"]) == 5
    assert not average.network.training


def test_a_young_average_forgets_its_start() -> None:
    """At step 0 nine tenths are the new weights, for any decay."""
    network = little_net()
    average = WeightAverage(network, 0.9999)
    with torch.no_grad():
        network.fc.weight.zero_()
    average.update(network, 0)
    torch.testing.assert_close(average.network.state_dict()["fc.weight"], little_net().fc.weight.detach() * 0.1)


def test_the_score_is_loss_and_error_of_the_logits() -> None:
    """They equal a direct computation; logits and labels are in the set's order, and the network's mode is unchanged."""
    network, images = little_net().train(), stripes(50)
    found = score(network, images, PREPROCESS, batch=16, keep_logits=True)
    assert network.training
    assert found.logits is not None
    labels = torch.tensor(images.labels)
    logits = torch.from_numpy(found.logits)
    assert found.labels is not None
    assert found.labels.tolist() == list(images.labels or ())
    assert found.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert found.error == pytest.approx(100 * float((logits.argmax(1) != labels).float().mean()))
    assert found.images == 50
    assert same(network, little_net())


def test_pixels_are_normalised_as_in_the_graph() -> None:
    """(x / 255 - mean) / std per channel, in either memory format."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PREPROCESS.mean, PREPROCESS.std))
    expected = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
    for channels_last in (True, False):
        torch.testing.assert_close(normalise(pixels, PREPROCESS, channels_last=channels_last), expected)
    assert normalise(pixels, PREPROCESS, channels_last=False).is_contiguous()


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ("flags : fpu avx512_bf16", True),
        ("flags : amx_bf16", True),
        ("Features : asimd bf16", True),
        ("flags : avx2", False),
        ("", False),
    ],
)
def test_auto_takes_bf16_where_the_processor_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, fast: bool
) -> None:
    """By the processor features that Linux lists; an explicit precision is used on any processor."""
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(epoch, "_CPUINFO", tmp_path / "cpuinfo")
    assert uses_bf16("auto", CPU) == fast
    assert uses_bf16("bf16", CPU)
    assert not uses_bf16("fp32", CPU)
    monkeypatch.setattr(epoch, "_CPUINFO", tmp_path / "absent")
    assert not uses_bf16("auto", CPU)
