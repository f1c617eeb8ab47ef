"""Which network and preprocessing a build gets: the user's choice, else the weights', else the family's, and who is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edge_resnet.core.errors import ConfigError, EdgeResnetError, WeightsError
from edge_resnet.core.modelnames import spec_named
from edge_resnet.core.records import ModelSpec, Preprocess
from edge_resnet.network import build_network
from edge_resnet.pipelines.selection import PreprocessChoice, Request, select


def saved(path: Path, spec: ModelSpec, *, channels: int = 3) -> str:
    """A file of seeded weights of a network; of one channel if asked for."""
    torch.manual_seed(0)
    state = build_network(spec).state_dict()
    state["conv1.weight"] = state["conv1.weight"][:, :channels].clone()
    save_file(state, path)
    return str(path)


def test_torchvisions_weights_bring_their_preprocessing() -> None:
    """V2 is resized to 232; default is V1, the 50 layers of which are the usual."""
    second, usual = select(Request("v2")), select(Request())
    assert second.preprocess == Preprocess(232, 224)
    assert (usual.preprocess, usual.model.name, usual.weights) == (Preprocess(256, 224), "resnet50", "default")
    assert second.origin.preprocessing == "torchvision's IMAGENET1K_V2"
    assert second.origin.source.endswith(".pth")
    assert select(Request("v1", name="wide_resnet50_2")).model.layout.width_per_group == 128


def test_overrides_are_named() -> None:
    """What the user says is taken and told; another input size keeps the share that is cropped."""
    chosen = select(Request("v2", images=PreprocessChoice(interpolation="bicubic", mean=(0.5, 0.5, 0.5))))
    assert chosen.preprocess == replace(Preprocess(232, 224, "bicubic"), mean=(0.5, 0.5, 0.5))
    assert chosen.origin.preprocessing == "torchvision's IMAGENET1K_V2, interpolation, mean as asked for"
    larger = select(Request("v2", images=PreprocessChoice(input_size=288)))
    assert (larger.preprocess.crop, larger.preprocess.resize, larger.model.input_size) == (288, 298, 288)
    assert select(Request("v2", images=PreprocessChoice(resize=224))).preprocess.resize == 224


def test_a_files_network_is_read_from_it(tmp_path: Path) -> None:
    """Without a depth or a name, family, depth, groups and classes are the file's; the manifest gets its name and hash alone."""
    spec = replace(spec_named("resnet18-small"), classes=7)
    chosen = select(Request(saved(tmp_path / "own.safetensors", spec)))
    assert replace(chosen.model, weights="random") == spec
    assert chosen.preprocess == Preprocess(32, 32)
    assert chosen.origin.source == "own.safetensors"
    assert len(chosen.origin.sha256) == 64
    assert chosen.origin.preprocessing == "the family's"
    assert select(Request(str(tmp_path / "own.safetensors"), plain=True)).model.plain
    with pytest.raises(ConfigError, match="not of the family cifar"):
        select(Request(str(tmp_path / "own.safetensors"), family="cifar"))


def test_one_channel_needs_its_normalisation(tmp_path: Path) -> None:
    """Nobody guesses mean and std of grey images, and three different ones are refused."""
    path = saved(tmp_path / "grey.safetensors", spec_named("resnet18-small"), channels=1)
    with pytest.raises(ConfigError, match="one channel, and nothing says") as caught:
        select(Request(path))
    assert "--mean" in caught.value.hint
    with pytest.raises(ConfigError, match="one mean and one std"):
        select(Request(path, images=PreprocessChoice(mean=(0.1, 0.2, 0.3), std=(0.3, 0.3, 0.3))))
    grey = PreprocessChoice(mean=(0.1307,) * 3, std=(0.3081,) * 3)
    assert select(Request(path, images=grey)).preprocess.std == (0.3081,) * 3


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (Request("v2", depth=18), WeightsError),
        (Request("v1", family="cifar", depth=20), WeightsError),
        (Request("v2", name="resnet50", depth=50), ConfigError),
        (Request("v2", name="resnet50", family="imagenet"), ConfigError),
        (Request("default", name="vit_b_16"), ConfigError),
        (Request("nowhere.pth"), WeightsError),
        (Request("hf://nowhere"), WeightsError),
        (Request("default", module=nn.Linear(2, 2), name="resnet50"), ConfigError),
        (Request("v2", images=PreprocessChoice(resize=100)), ConfigError),
        (Request("v2", images=PreprocessChoice(interpolation="lanczos")), ConfigError),  # type: ignore[arg-type]
    ],
)
def test_what_is_refused(request_: Request, kind: type[EdgeResnetError]) -> None:
    """Weights that do not exist, two networks at once, and preprocessing that is none, each with a hint."""
    with pytest.raises(kind) as caught:
        select(request_)
    assert caught.value.hint
