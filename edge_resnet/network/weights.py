"""Weights into a network: torchvision's by name, a file's whatever its keys are called. Knows nothing of export."""

from __future__ import annotations

import pickle
import re
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load, load_file
from torch import nn

from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import ModelSpec, Progress, Shortcut
from edge_resnet.network.pretrained import download, shipped_checkpoint
from edge_resnet.network.resnet import ResNet, build_network

__all__ = ["default_address", "fill_network", "load_weights", "spec_of"]

State = dict[str, torch.Tensor]

#: Where repositories put the state dict inside a checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params")
#: Prefixes that wrappers of a network leave on every key: DataParallel, torch.compile, Lightning, and whole-model attributes.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
#: Names that CIFAR repositories use for torchvision's.
_RENAMES = ((re.compile(r"^linear\."), "fc."), (re.compile(r"\.shortcut\."), ".downsample."))
_FORMATS = "a .pth, .th, .pt or .safetensors file with a state dict"


def load_weights(network: ResNet, spec: ModelSpec, weights: str, *, progress: Progress | None = None) -> str:
    """Fill ``network`` with ``default`` (the checkpoint that ships, else torchvision's IMAGENET1K_V1), ``random`` (what it has),
    or the file of that path.

    Returns the id for the manifest: the checkpoint's, ``IMAGENET1K_V1``, ``random`` or ``sha256:…``. Raises WeightsError where
    the weights cannot be had, cannot be read without running code, do not fit, or are not finite.
    """
    if weights == "random":
        return "random"
    if weights == "default" and (own := shipped_checkpoint(spec)) is not None:
        _fill(network, load(own.weights()), own.model.weights)
        return own.model.weights
    if weights == "default":
        url, prefix = default_address(spec)
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        _fill(network, _read(download(url, path, prefix, progress=progress)), str(path))
        return "IMAGENET1K_V1"
    path = Path(weights)
    _fill(network, _read(path), str(path))
    return f"sha256:{sha256_of(path)}"


def fill_network(network: ResNet, module: nn.Module) -> ResNet:
    """Give ``network`` the parameters of a torch module in torchvision's layout. Raises WeightsError where they do not fit."""
    _fill(network, {key: value.detach().cpu() for key, value in module.state_dict().items()}, type(module).__name__)
    return network


def spec_of(network: nn.Module) -> ModelSpec:
    """Which network of He et al. 2015 a module is, by the names and shapes of its parameters (torchvision's layout).

    Its input size is the family's. Raises WeightsError where it is none of them.
    """
    state = _without_counters(_renamed(network.state_dict()))
    spec = _made_for(state)
    if spec is None:
        raise WeightsError(
            f"{type(network).__name__} is not one of the networks that can be built",
            hint="edge-resnet models lists them; torchvision's ResNets of depth 18 to 152 are among them",
        )
    return spec if spec.family == "imagenet" else replace(spec, input_size=32)


def default_address(spec: ModelSpec) -> tuple[str, str]:
    """URL and leading hex digits of the sha256 of torchvision's IMAGENET1K_V1 weights for this network."""
    if spec.family != "imagenet" or spec.shortcut != "B" or spec.plain or spec.classes != 1000:
        raise WeightsError(
            f"there are no default weights for {spec.name} with shortcut {spec.shortcut} and {spec.classes} classes",
            hint="--weights PATH takes a file; --weights random begins from nothing",
        )
    from torchvision.models import get_model_weights

    url: str = get_model_weights(f"resnet{spec.depth}")["IMAGENET1K_V1"].url
    found = re.search(r"-([0-9a-f]{8,})\.", url)  # torchvision puts the first digits of the hash into the name
    return url, found.group(1) if found else ""


def _read(path: Path) -> State:
    """The tensors of a weights file. Nothing in it is executed."""
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise WeightsError(f"weights {path}: it {what}", hint=f"--weights takes {_FORMATS}")
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch talks of its internals before it raises what is mapped here
            return _unwrapped(torch.load(path, map_location="cpu", weights_only=True), path)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights {path} hold code or are not weights", hint="save the state dict alone, best as .safetensors"
        ) from error
    except Exception as error:  # RuntimeError, EOFError, KeyError, IndexError, SafetensorError and more: what damage hits first
        raise WeightsError(
            f"weights {path} are damaged or are not weights ({_first_sentence(error)})", hint="is the file whole? fetch it again"
        ) from error


def _unwrapped(content: object, path: Path, deepest: int = 8) -> State:
    """The state dict inside a checkpoint, where the repository put it: a dict can hold itself, so the search has a bottom."""
    if not isinstance(content, dict):
        raise WeightsError(
            f"weights {path} hold a {type(content).__name__}, not a state dict", hint=f"--weights takes {_FORMATS}"
        )
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
    if inner is not None and deepest > 0:
        return _unwrapped(inner, path, deepest - 1)
    return {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}


def _fill(network: ResNet, found: State, origin: str) -> None:
    """Load what fits and is finite; the network is unchanged where anything is wrong."""
    state, needed = _without_counters(_renamed(found)), _without_counters(network.state_dict())
    _refuse_mismatch(state, needed, origin)
    for key, value in state.items():
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            raise WeightsError(f"weights {origin}: {key} is no dense tensor of real numbers", hint="save dense float tensors")
        state[key] = value.to(needed[key].dtype)
        if not torch.isfinite(state[key]).all():
            raise WeightsError(
                f"weights {origin}: {key} holds a value that is not finite", hint="the training diverged; use another file"
            )
    network.load_state_dict(state, strict=False)


def _without_counters(state: State) -> State:
    """Some savers leave num_batches_tracked out, and inference never reads it."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _renamed(state: State) -> State:
    """Keys as torchvision writes them."""
    while prefix := next((p for p in _PREFIXES if state and all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    for pattern, name in _RENAMES:
        state = {pattern.sub(name, key): value for key, value in state.items()}
    return state


def _refuse_mismatch(state: State, needed: State, origin: str) -> None:
    """Raise WeightsError that names the first key of each kind that does not fit, and what the file looks like instead."""
    faults = []
    missing = [key for key in needed if key not in state]
    unexpected = [key for key in state if key not in needed]
    misshapen = [key for key in needed if key in state and state[key].shape != needed[key].shape]
    if missing:
        faults.append(f"{missing[0]} is missing")
    if unexpected:
        faults.append(f"{unexpected[0]} is unexpected")
    if misshapen:
        key = misshapen[0]
        faults.append(f"{key} is {tuple(state[key].shape)} and not {tuple(needed[key].shape)}")
    if faults:
        raise WeightsError(f"weights {origin} do not fit the network: {', '.join(faults)}", hint=_advice(state))


def _advice(state: State) -> str:
    spec = _made_for(state)
    if spec is None:
        return f"--weights takes {_FORMATS} of a network that `edge-resnet models` lists"
    return f"the file fits --family {spec.family} --depth {spec.depth} --shortcut {spec.shortcut} --classes {spec.classes}"


def _made_for(state: State) -> ModelSpec | None:
    """The network that a state dict belongs to, None where it is none of ours. A plain twin's is taken for option A's."""
    blocks = [len({key.split(".")[1] for key in state if key.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4)]
    depth = sum(blocks) * (3 if "layer1.0.conv3.weight" in state else 2) + 2
    projected = {key.rsplit(".", 3)[0] for key in state if key.endswith(".downsample.0.weight")}
    shortcut: Shortcut = "A" if not projected else "C" if len(projected) == sum(blocks) else "B"
    classes = len(state["fc.bias"]) if "fc.bias" in state and state["fc.bias"].ndim else 0
    try:
        spec = ModelSpec("imagenet" if blocks[3] else "cifar", depth, shortcut, classes=classes)
    except ConfigError:
        return None
    with torch.device("meta"):
        needed = _without_counters(build_network(spec).state_dict())
    return spec if {k: v.shape for k, v in needed.items()} == {k: v.shape for k, v in state.items()} else None


def _first_sentence(error: Exception) -> str:
    """What a foreign error says first, with its type where it says too little by itself."""
    text = re.split(r"\. |\n", str(error).strip())[0].rstrip(".")[:200]
    return text if " " in text else f"{type(error).__name__} {text}".strip()
