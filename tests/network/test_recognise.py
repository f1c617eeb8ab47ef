"""Networks by their state dicts: which one it is, in which library's keys, and what a stranger seems to be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.modelnames import NAMED, spec_named
from edge_resnet.core.records import FAMILIES, ModelSpec, default_spec
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.keylayouts import to_torchvisions_keys
from edge_resnet.network.recognise import matching_spec, seems_to_be
from edge_resnet.network.weights import spec_in_file

State = dict[str, torch.Tensor]


def on_meta(spec: ModelSpec) -> State:
    with torch.device("meta"):
        return build_network(spec).state_dict()


@pytest.mark.parametrize("name", [*NAMED, "resnet18", "resnet152", "resnet20-cifar", "resnet110-cifar"])
def test_every_network_is_recognised_by_its_tensors(name: str) -> None:
    """Depth, groups, widths, stem, projections, family and classes follow from names and shapes."""
    spec = replace(spec_named(name), classes=7)
    found = matching_spec(on_meta(spec))
    assert found is not None
    assert replace(found, input_size=spec.input_size) == spec


def test_one_wrong_shape_is_no_network() -> None:
    """A missing tensor, another shape, and an additional tensor are not taken for the network."""
    state = on_meta(default_spec("imagenet", 18))
    assert matching_spec({key: value for key, value in state.items() if key != "bn1.weight"}) is None
    assert matching_spec(state | {"layer2.0.conv1.weight": torch.empty(1)}) is None
    assert matching_spec(state | {"layer1.0.se.fc1.weight": torch.empty(1)}) is None


def transformers_keys(key: str) -> str:
    """torchvision's key as Hugging Face's transformers has it (its convert_resnet_to_pytorch maps layers alike)."""
    key = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", key)
    key = re.sub(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution.", key)
    key = re.sub(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization.", key)
    key = key.replace(".downsample.0.", ".shortcut.convolution.").replace(".downsample.1.", ".shortcut.normalization.")
    key = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", key)
    return re.sub(r"^fc\.", "classifier.1.", re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", key))


def table_keys(key: str) -> str:
    """torchvision's key as repositories have it that name stages after the paper's table."""
    place = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6", "bn3": "7"}
    key = re.sub(r"^bn1\.", "conv1.1.", re.sub(r"^conv1\.", "conv1.0.", key))
    key = re.sub(
        r"^layer(\d)\.(\d+)\.(conv\d|bn\d)\.", lambda m: f"conv{int(m[1]) + 1}_x.{m[2]}.residual_function.{place[m[3]]}.", key
    )
    return re.sub(r"^layer(\d)\.(\d+)\.downsample\.", lambda m: f"conv{int(m[1]) + 1}_x.{m[2]}.shortcut.", key)


@pytest.mark.parametrize(
    ("renamed", "name", "prefix"),
    [
        (transformers_keys, "resnet50", ""),
        (transformers_keys, "resnet18", "model."),
        (table_keys, "resnet50-small", "model."),
        (table_keys, "resnet18-small", ""),
    ],
)
def test_other_libraries_keys(renamed: object, name: str, prefix: str, tmp_path: Path) -> None:
    """The same network under other names is loaded with the same tensors."""
    spec = replace(spec_named(name), classes=5)
    torch.manual_seed(0)
    state = build_network(spec).state_dict()
    foreign = {prefix + renamed(key): value for key, value in state.items()}  # type: ignore[operator]
    assert set(foreign) != {prefix + key for key in state}
    save_file(foreign, tmp_path / "w.safetensors")
    assert spec_in_file(str(tmp_path / "w.safetensors")) == (spec, False)
    network = build_network(spec)
    load_weights(network, spec, str(tmp_path / "w.safetensors"))
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items() if "num_batches" not in key)


def test_torchvisions_keys_stay() -> None:
    """What has torchvision's keys, or keys that no known layout has, is not renamed."""
    state = on_meta(spec_named("resnet50d"))
    assert list(to_torchvisions_keys(state)) == list(state)
    assert to_torchvisions_keys({"anything.else": 1}) == {"anything.else": 1}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("layer1.0.se.fc1.weight", "squeeze-and-excitation"),
        ("cls_token", "Vision Transformer"),
        ("stages.0.blocks.0.conv_dw.weight", "ConvNeXt"),
        ("conv_stem.weight", "EfficientNet"),
        ("features.denseblock1.denselayer1.norm1.weight", "DenseNet"),
        ("features.0.weight", "VGG"),
        ("stages.0.blocks.0.norm1.weight", "ResNet v2"),
        ("model.embed_tokens.weight", "language model"),
        ("layer1.0.convs.0.weight", "Res2Net"),
        ("model.0.conv.weight", "YOLO"),
    ],
)
def test_a_stranger_is_named(key: str, name: str, tmp_path: Path) -> None:
    """The error names what the weights seem to be, and the hint says where the list is."""
    save_file({key: torch.zeros(2)}, tmp_path / "w.safetensors")
    assert name in seems_to_be({key: torch.zeros(2)})
    with pytest.raises(WeightsError, match=name) as caught:
        spec_in_file(str(tmp_path / "w.safetensors"))
    assert "edge-resnet models" in caught.value.hint


@pytest.mark.parametrize("name", ["resnet18-small", "resnet18d"])
def test_one_channel_is_the_brightness_of_three(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A network of grey images, given one in RGB, computes what it computes of the channel alone; a line says so."""
    spec = replace(spec_named(name), classes=4)
    torch.manual_seed(0)
    state = build_network(spec).state_dict()
    first = "conv1.0.weight" if name.endswith("d") else "conv1.weight"
    state[first] = state[first][:, :1].clone()
    save_file(state, tmp_path / "grey.safetensors")
    assert spec_in_file(str(tmp_path / "grey.safetensors")) == (spec, True)
    network = build_network(spec).eval()
    load_weights(network, spec, str(tmp_path / "grey.safetensors"))
    assert "brightness" in caplog.text
    convolution = network.conv1[0] if name.endswith("d") else network.conv1
    image = torch.randn(2, 1, 32, 32)
    expected = torch.nn.functional.conv2d(image, state[first], stride=convolution.stride, padding=convolution.padding)
    torch.testing.assert_close(convolution(image.repeat(1, 3, 1, 1)), expected, atol=1e-5, rtol=1e-5)


def test_the_small_family_is_not_the_papers() -> None:
    """A 3x3 stem with four stages is the family small; with three it is cifar."""
    assert {family for family in FAMILIES if matching_spec(on_meta(default_spec(family, FAMILIES[family].depths[0])))} == set(
        FAMILIES
    )
