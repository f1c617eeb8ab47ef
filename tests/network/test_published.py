"""What torchvision, timm and transformers say of weights: the preprocessing that they use, and contradictions."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.modelnames import spec_named
from edge_resnet.core.records import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from edge_resnet.images.preprocess import preprocess
from edge_resnet.network import build_network
from edge_resnet.network.export import Deployable
from edge_resnet.network.published import published_config, torchvision_published

TIMM: dict[str, Any] = {
    "architecture": "resnet50", "num_classes": 1000, "num_features": 2048,
    "pretrained_cfg": {
        "tag": "a1_in1k", "input_size": [3, 224, 224], "test_input_size": [3, 288, 288], "interpolation": "bicubic",
        "crop_pct": 0.95, "test_crop_pct": 1.0, "crop_mode": "center", "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD), "num_classes": 1000,
    },
}  # fmt: skip
MICROSOFT: dict[str, Any] = {
    "model_type": "resnet", "architectures": ["ResNetForImageClassification"], "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck", "hidden_act": "relu", "num_channels": 3, "downsample_in_first_stage": False,
    "id2label": {str(i): f"c{i}" for i in range(1000)},
}  # fmt: skip
CONVNEXT: dict[str, Any] = {
    "feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "resample": 3, "size": 224,
    "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD),
}  # fmt: skip
R50 = spec_named("resnet50")


def changed(record: dict[str, Any], **values: Any) -> dict[str, Any]:
    inner = record.get("pretrained_cfg", {})
    top = {key: value for key, value in values.items() if key not in inner or key == "num_classes"}
    found = record | top
    if inner:
        found["pretrained_cfg"] = inner | {key: value for key, value in values.items() if key in inner}
    return found


@pytest.mark.parametrize(
    ("name", "version", "resize", "crop"),
    [
        ("resnet50", "v1", 256, 224),
        ("resnet50", "v2", 232, 224),
        ("resnext101_64x4d", "v1", 232, 224),
        ("wide_resnet50_2", "v2", 232, 224),
    ],
)
def test_torchvisions_transforms(name: str, version: str, resize: int, crop: int) -> None:
    """Resize, crop and interpolation are those of torchvision's transforms for these weights."""
    published = torchvision_published(spec_named(name), version)
    assert published.preprocess == Preprocess(resize, crop, "bilinear", IMAGENET_MEAN, IMAGENET_STD)


def test_weights_that_torchvision_lacks() -> None:
    """ResNet-18 has no V2, which the hint replaces; a network that torchvision lacks has none."""
    with pytest.raises(WeightsError, match="no IMAGENET1K_V2") as caught:
        torchvision_published(spec_named("resnet18"), "v2")
    assert "--weights v1" in caught.value.hint
    with pytest.raises(WeightsError, match="no default weights"):
        torchvision_published(spec_named("resnet50d"), "v1")


@pytest.mark.parametrize("size", [(333, 501), (225, 224), (801, 421), (64, 91)])
@pytest.mark.parametrize(("name", "version"), [("resnet18", "v1"), ("resnet50", "v2")])
def test_the_logits_are_torchvisions(name: str, version: str, size: tuple[int, int]) -> None:
    """Our preprocessing and network give the logits of torchvision's transforms and network on odd sizes, within 1e-4."""
    models = pytest.importorskip("torchvision.models")
    transforms = models.get_model_weights(name)["IMAGENET1K_" + version.upper()].transforms()
    published = torchvision_published(spec_named(name), version).preprocess
    assert published is not None
    assert _difference(transforms, name, published, size) <= 1e-4


@pytest.mark.parametrize("size", [(333, 501), (801, 421), (64, 91)])
@pytest.mark.parametrize(
    "values", [{}, {"crop_pct": 0.875, "interpolation": "bilinear"}, {"crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}]
)
def test_the_logits_are_timms(values: dict[str, Any], size: tuple[int, int]) -> None:
    """Our preprocessing and network give the logits of timm's transform and network on odd sizes, within 1e-4."""
    data = pytest.importorskip("timm.data")
    config = changed(TIMM, architecture="resnet18d", **values)
    details = config["pretrained_cfg"]
    keys = ("interpolation", "crop_pct", "mean", "std", "crop_mode")
    transforms = data.create_transform(input_size=tuple(details["input_size"]), **{key: details[key] for key in keys})
    published = published_config(config, {}, spec_named("resnet18d")).preprocess
    assert published is not None
    assert _difference(transforms, "resnet18d", published, size) <= 1e-4


@functools.lru_cache(maxsize=1)
def _networks(name: str) -> tuple[nn.Module, nn.Module]:
    """The network of torchvision, or of timm where torchvision has none, and ours, of the same random weights."""
    models, timm = pytest.importorskip("torchvision.models"), pytest.importorskip("timm")
    torch.manual_seed(0)
    reference = (models.get_model(name) if name in models.list_models() else timm.create_model(name)).eval()
    with torch.device("meta"):  # no random weights for what is replaced at once
        network = build_network(spec_named(name)).eval()
    network.load_state_dict(reference.state_dict(), assign=True)
    return reference, network


def _difference(transforms: Any, name: str, published: Preprocess, size: tuple[int, int]) -> float:
    """The largest difference of a logit between a library and us, on an image of that size, relative to the largest logit."""
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).numpy()
    reference, network = _networks(name)
    with torch.inference_mode():
        theirs = reference(transforms(Image.fromarray(pixels))[None])
        ours = Deployable(network, published).eval()(torch.from_numpy(preprocess(pixels, published))[None])
    return float((ours - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))


def test_timms_config() -> None:
    """crop_pct, bicubic, classes and names are read; another size of the test is told and not taken."""
    published = published_config(TIMM, {}, R50)
    assert published.preprocess == Preprocess(235, 224, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
    assert published.resize(288) == 303
    assert "--input-size 288 --resize 288" in published.remarks[0]
    names = changed(TIMM, label_names=["n0", "n1"], label_descriptions={"n0": "a dog\nor so"}, num_classes=2)
    two = spec_named("resnet50").__class__("imagenet", 50, classes=2)
    assert published_config(names, {}, two).labels == ("a dog or so", "n1")


def test_transformers_config() -> None:
    """crop_pct is 0.875 of the short side; labels are those of id2label, and LABEL_0 is none."""
    published = published_config(MICROSOFT, CONVNEXT, R50)
    assert published.preprocess == Preprocess(256, 224, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
    assert published.labels is not None
    assert published.labels[999] == "c999"
    unnamed = changed(MICROSOFT, id2label={str(i): f"LABEL_{i}" for i in range(1000)})
    assert published_config(unnamed, {}, R50).labels is None
    clip = CONVNEXT | {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 232}, "do_center_crop": True}
    clip = {key: value for key, value in clip.items() if key != "feature_extractor_type"} | {
        "crop_size": {"height": 224, "width": 224}
    }
    assert published_config(MICROSOFT, clip, R50).preprocess == Preprocess(232, 224, "bicubic", IMAGENET_MEAN, IMAGENET_STD)


def test_a_repository_that_says_nothing() -> None:
    """Then the family's preprocessing is taken, which is told."""
    published = published_config({}, {}, R50)
    assert published.preprocess is None
    assert "nothing about preprocessing" in published.remarks[0]


@pytest.mark.parametrize(
    ("config", "preprocessor", "words"),
    [
        (changed(TIMM, num_classes=10), {}, "10 classes"),
        (changed(TIMM, architecture="resnetaa50"), {}, "resnetaa50"),
        (changed(TIMM, architecture="resnet18"), {}, "resnet18"),
        (changed(TIMM, input_size=[1, 224, 224]), {}, "channels"),
        (changed(TIMM, input_size=[3, 224, 192]), {}, "squares"),
        (changed(TIMM, interpolation="lanczos"), {}, "lanczos"),
        (changed(TIMM, crop_mode="squash"), {}, "squash"),
        (changed(TIMM, mean=[1, 2]), {}, "cannot be used"),
        (changed(TIMM, crop_pct="a"), {}, "cannot be used"),
        (changed(TIMM, std=[58.0, 57.0, 57.0]), {}, "std must lie"),
        (changed(TIMM, model_args={"output_stride": 8}), {}, "output_stride"),
        (changed(MICROSOFT, depths=[2, 2, 2, 2]), CONVNEXT, "26 layers"),
        (changed(MICROSOFT, id2label={"0": "a"}), CONVNEXT, "1 classes"),
        (changed(MICROSOFT, hidden_act="gelu"), CONVNEXT, "gelu"),
        (changed(MICROSOFT, downsample_in_bottleneck=True), CONVNEXT, "downsample_in_bottleneck"),
        (MICROSOFT, changed(CONVNEXT, size=384), "warps"),
        (MICROSOFT, changed(CONVNEXT, feature_extractor_type="ViT", size={"height": 224, "width": 224}), "warps"),
        (MICROSOFT, changed(CONVNEXT, resample=1), "lanczos"),
        ({"model_type": "vit"}, {}, "'vit'"),
    ],
)  # fmt: skip
def test_a_config_that_contradicts_or_cannot_be_followed(
    config: dict[str, Any], preprocessor: dict[str, Any], words: str
) -> None:
    """What would give wrong answers is refused with a line that names it, and a hint."""
    with pytest.raises(WeightsError, match=words) as caught:
        published_config(config, preprocessor, R50)
    assert caught.value.hint
    assert "\n" not in caught.value.message
