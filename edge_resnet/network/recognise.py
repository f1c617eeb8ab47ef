"""Which network a state dict belongs to, by the names and shapes of its tensors; else what it seems to be. Knows no files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import torch

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Family, Layout, ModelSpec, Shortcut
from edge_resnet.network.resnet import build_network
from edge_resnet.network.statedict import StateDict

__all__ = ["matching_spec", "seems_to_be", "without_counters"]

#: A key, or a part of one → the network that has it. The first that matches is named.
_OTHERS: Mapping[str, str] = MappingProxyType(
    {
        r"(^|\.)layer1\.0\.(se|attn)\.": "a ResNet with squeeze-and-excitation or attention in its blocks",
        r"(^|\.)layer1\.0\.convs\.": "a Res2Net",
        r"(^|\.)layer1\.0\.conv2\.(conv|fc1|bn0)\.": "a ResNeSt or a selective-kernel ResNet",
        r"lora_[AB]|adapter": "an adapter, without the network that it belongs to",
        r"(^|\.)relative_position_bias_table": "a Swin Transformer",
        r"(word|token)_embeddings?\.|embed_tokens|wte\.": "a language model",
        r"(^|\.)visual\.|vision_model\.|text_model\.": "a CLIP model",
        r"(^|\.)(cls_token|class_token|pos_embed)|\.attn\.qkv\.|attention\.attention\.": "a Vision Transformer",
        r"\.gamma$|conv_dw\.|dwconv\.|layer_scale_parameter": "a ConvNeXt or another network with depthwise convolutions",
        r"(^|\.)(conv_stem|_conv_stem)\.": "an EfficientNet or a MobileNet",
        r"(^|\.)stages\.0\.blocks\.0\.norm1\.": "a ResNet v2 (pre-activation)",
        r"(^|\.)trunk_output\.|(^|\.)s1\.b1\.": "a RegNet",
        r"(^|\.)features\.denseblock1\.": "a DenseNet",
        r"(^|\.)features\.\d+\.conv\.": "a MobileNet",
        r"(^|\.)Conv2d_1a_3x3\.|(^|\.)Mixed_\d": "an Inception network",
        r"(^|\.)features\.\d+\.squeeze\.": "a SqueezeNet",
        r"(^|\.)features\.\d+\.(weight|0\.weight)$": "a VGG network, an AlexNet or a ConvNeXt",
        r"(^|\.)model\.\d+\.(cv1|conv)\.": "a YOLO detector",
        r"(^|\.)(rpn|roi_heads|backbone\.fpn)\.": "a detector with a feature pyramid",
    }
)


def without_counters(state: StateDict) -> StateDict:
    """Without num_batches_tracked: some files omit it, and inference never reads it."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def matching_spec(state: StateDict) -> ModelSpec | None:
    """The network that a state dict belongs to, or None. A plain network has the keys of its residual twin with option A.

    The input size is that of ImageNet's networks. A 3x3 stem is taken without a max pool, which has no parameters.
    """
    state = without_counters(state)
    blocks = [len({key.split(".")[1] for key in state if key.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4)]
    depth = sum(blocks) * (3 if "layer1.0.conv3.weight" in state else 2) + 2
    averaging = any(key.endswith(".downsample.1.weight") and value.ndim == 4 for key, value in state.items())
    ending = f".downsample.{1 if averaging else 0}.weight"
    projected = {key.removesuffix(ending) for key in state if key.endswith(ending)}
    shortcut: Shortcut = "A" if not projected else "C" if len(projected) == sum(blocks) else "B"
    classes = len(state["fc.bias"]) if "fc.bias" in state and state["fc.bias"].ndim else 0
    stem = state.get("conv1.weight")
    small = stem is not None and stem.ndim == 4 and stem.shape[2] == 3
    try:
        layout = Layout(*_groups(state), _stem(state), averaging)
        family: Family = "cifar" if not blocks[3] else "small" if small else "imagenet"
        spec = ModelSpec(family, depth, shortcut, classes=classes, layout=layout)
    except ConfigError:
        return None
    with torch.device("meta"):
        needed = without_counters(build_network(spec).state_dict())
    return spec if {k: v.shape for k, v in needed.items()} == {k: v.shape for k, v in state.items()} else None


def seems_to_be(state: StateDict) -> str:
    """What sets a network apart from those that can be built, where it is a known one; else an empty text."""
    stem = state.get("conv1.weight")
    if not state:
        return "the file contains no tensors"
    if stem is not None and stem.ndim == 4 and stem.shape[1] not in (1, 3):
        return f"this network takes images of {stem.shape[1]} channels, not RGB"
    for pattern, name in _OTHERS.items():
        if any(re.search(pattern, key) for key in state):
            return f"this seems to be {name}"
    if "layer1.0.bn1.weight" in state and "layer1.0.bn1.running_var" not in state:
        return "this ResNet has group or layer normalisation in place of batch norms"
    if stem is not None and stem.ndim == 4 and "layer4.0.conv1.weight" in state and stem.shape[2] not in (3, 7):
        return "this network has another stem than an ImageNet ResNet"
    if "layer1.0.conv1.weight" in state:
        return "this is a ResNet of other depths or widths"
    return ""


def _groups(state: StateDict) -> tuple[int, int]:
    """Groups and their width in a bottleneck's 3x3 convolution, as torchvision counts: channels of 64 planes over groups."""
    middle = state.get("layer1.0.conv2.weight")
    if "layer1.0.conv3.weight" not in state or middle is None or middle.ndim != 4 or not middle.shape[1]:
        return 1, 64
    groups = middle.shape[0] // middle.shape[1]
    return groups, middle.shape[0] // max(groups, 1)


def _stem(state: StateDict) -> tuple[int, ...]:
    """Output channels of a deep stem's convolutions; empty for another stem."""
    return tuple(state[key].shape[0] for number in (0, 3, 6) if (key := f"conv1.{number}.weight") in state and state[key].ndim)
