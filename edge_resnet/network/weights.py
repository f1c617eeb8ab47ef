"""Loads weights into a network: torchvision's by name, or a file in any of the usual key layouts. Does not know about export."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load
from torch import nn

from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import ModelSpec, Progress, Shortcut
from edge_resnet.network.pretrained import download, shipped_checkpoint
from edge_resnet.network.resnet import ResNet, build_network
from edge_resnet.network.statedict import HeldNetwork, StateDict, choose, held_networks
from edge_resnet.network.weightfile import FORMATS, read_weights_file

__all__ = ["default_address", "fill_network", "load_weights", "spec_of"]

_log = logging.getLogger(__name__)


def load_weights(network: ResNet, spec: ModelSpec, weights: str, *, progress: Progress | None = None) -> str:
    """Load ``weights`` into ``network``: ``default``, ``random``, or a file, with ``#NAME`` after it for one of its networks.

    ``default`` is the checkpoint that ships with the package if there is one, else torchvision's IMAGENET1K_V1. ``random``
    leaves the network as it is. Of a network and its average over the training the average is taken; what was chosen or passed
    over is logged as a warning. Returns the id for the manifest: the checkpoint's, ``IMAGENET1K_V1``, ``random`` or
    ``sha256:…``, with ``#NAME`` where the file holds several networks. Raises WeightsError if the weights cannot be downloaded,
    cannot be read without executing code, do not fit the network, or are not finite, and where it is not clear which of several
    networks is meant. If they fit a network with another number of classes, ``WeightsError.classes`` says which.
    """
    if weights == "random":
        return "random"
    if weights == "default" and (shipped := shipped_checkpoint(spec)) is not None:
        _fill(network, load(shipped.weights()), shipped.model.weights)
        return shipped.model.weights
    if weights == "default":
        url, prefix = default_address(spec)
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        _fill_from_file(network, download(url, path, prefix, progress=progress))
        return "IMAGENET1K_V1"
    path, wanted = file_and_name(weights)
    name = _fill_from_file(network, path, wanted)
    return f"sha256:{sha256_of(path)}" + (f"#{name}" if name else "")


def file_and_name(weights: str) -> tuple[Path, str]:
    """The file of ``FILE#NAME`` and the name of one of its networks; a file that is called so as a whole takes precedence."""
    whole, _, name = weights.rpartition("#")
    if name and not Path(weights).exists() and Path(whole).is_file():
        return Path(whole), name
    return Path(weights), ""


def fill_network(network: ResNet, module: nn.Module) -> ResNet:
    """Give ``network`` the parameters of a torch module in torchvision's layout. Raises WeightsError where they do not fit."""
    name = type(module).__name__
    networks = held_networks({key: value.detach().cpu() for key, value in module.state_dict().items()})
    _fill(network, choose(networks, _without_counters(network.state_dict()), "", name).state, name)
    return network


def spec_of(network: nn.Module) -> ModelSpec:
    """Which network of He et al. 2015 a module is, by the names and shapes of its parameters (torchvision's layout).

    Its input size is the family's. Raises WeightsError where it is none of them.
    """
    networks = held_networks(dict(network.state_dict()))
    spec = _matching_spec(_without_counters(networks[0].state)) if len(networks) == 1 else None
    if spec is None:
        raise WeightsError(
            f"{type(network).__name__} is not one of the networks that can be built",
            hint="edge-resnet models lists them; torchvision's ResNets of depth 18 to 152 are among them",
        )
    return spec if spec.family == "imagenet" else replace(spec, input_size=32)


def default_address(spec: ModelSpec) -> tuple[str, str]:
    """The URL of torchvision's IMAGENET1K_V1 weights for this network, and the first hex digits of the file's sha256."""
    if spec.family != "imagenet" or spec.shortcut != "B" or spec.plain or spec.classes != 1000:
        raise WeightsError(
            f"there are no default weights for {spec.name} with shortcut {spec.shortcut} and {spec.classes} classes",
            hint="start from scratch with --weights random, or use a file: edge-resnet build --weights PATH",
        )
    from torchvision.models import get_model_weights

    url: str = get_model_weights(f"resnet{spec.depth}")["IMAGENET1K_V1"].url
    found = re.search(r"-([0-9a-f]{8,})\.", url)  # torchvision puts the first digits of the hash in the file name
    return url, found.group(1) if found else ""


def _fill_from_file(network: ResNet, path: Path, wanted: str = "") -> str:
    """Load one of a file's networks, and log what was chosen. Returns its name where the file holds several."""
    networks = held_networks(read_weights_file(path))
    held = choose(networks, _without_counters(network.state_dict()), wanted, str(path))
    several = len(networks) > 1
    _fill(network, held.state, f"{path} ({held.name})" if several else str(path))
    if remarks := list(_remarks(path, networks, held, chosen=bool(wanted))):
        _log.warning("weights %s: %s", path, "; ".join(remarks))
    return held.name if several else ""


def _remarks(path: Path, networks: list[HeldNetwork], held: HeldNetwork, *, chosen: bool) -> Iterator[str]:
    """What a reader should know about the network that was taken from a file."""
    if len(networks) > 1 and not chosen:
        average = ", the average over the training" if held.averaged else ""
        others = [network for network in networks if network is not held]
        names = " and ".join(network.name or "the file itself" for network in networks)
        yield f"{names} are there, {held.name or 'the file itself'} is taken{average}"
        yield from (f"{network.name} {network.unused}" for network in others if network.unused)
        if named := next((network.name for network in others if network.name), ""):
            yield f"{path}#{named} takes the other"
    if held.unused:
        yield f"this average {held.unused}"
    yield from held.notes
    if held.passed_over:
        yield f"{len(held.passed_over)} tensors of metrics and losses are passed over, {held.passed_over[0]} among them"


def _fill(network: ResNet, found: StateDict, origin: str) -> None:
    """Load ``found`` into the network if all of it fits and is finite; otherwise leave the network unchanged."""
    state, needed = _without_counters(found), _without_counters(network.state_dict())
    _refuse_mismatch(state, needed, origin)
    for key, value in state.items():
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            raise WeightsError(f"weights {origin}: {key} is not a dense float tensor", hint="save dense float tensors")
        if key.endswith("running_var") and bool((value < 0).any()):
            raise WeightsError(
                f"weights {origin}: {key} contains a negative variance ({float(value.min()):g})", hint="use another file"
            )
        state[key] = value.to(needed[key].dtype)
        if not torch.isfinite(state[key]).all():
            raise WeightsError(
                f"weights {origin}: {key} contains a value that is not finite", hint="the training diverged; use another file"
            )
    network.load_state_dict(state, strict=False)


def _without_counters(state: StateDict) -> StateDict:
    """Without num_batches_tracked: some files omit it, and inference never reads it."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _refuse_mismatch(state: StateDict, needed: StateDict, origin: str) -> None:
    """Raise WeightsError that names the first key of each kind of mismatch, and the network that the file fits instead."""
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
        faults.append(f"{key} has shape {tuple(state[key].shape)}, not {tuple(needed[key].shape)}")
    if not faults:
        return
    fits = _matching_spec(state)
    if fits is None:
        hint = f"{_unlike(state)}weights are {FORMATS} of a network that `edge-resnet models` lists"
    else:
        options = f"--family {fits.family} --depth {fits.depth} --shortcut {fits.shortcut} --classes {fits.classes}"
        hint = f"the file fits edge-resnet build {options}"
    message = f"weights {origin} do not fit the network: {', '.join(faults)}"
    raise WeightsError(message, hint=hint, classes=None if fits is None else fits.classes)


def _unlike(state: StateDict) -> str:
    """What sets a network apart from those that can be built, where it is a known one."""
    stem, first = state.get("conv1.weight"), state.get("layer1.0.conv1.weight")
    if not state:
        return "the file contains no tensors; "
    if any(".embedder." in key for key in state):
        return "these are Hugging Face's keys: save the state dict of torchvision's or timm's network; "
    if stem is not None and stem.ndim == 4 and stem.shape[1] != 3:
        return f"this network takes images of {stem.shape[1]} channels, not RGB; "
    if stem is not None and stem.ndim == 4 and "layer4.0.conv1.weight" in state and stem.shape[2] != 7:
        return "this network has another stem than an ImageNet ResNet; "
    if first is not None and "layer1.0.conv3.weight" in state and first.shape[0] != 64:
        return "this is a ResNeXt or a wide ResNet; "
    return ""


def _matching_spec(state: StateDict) -> ModelSpec | None:
    """The network that a state dict belongs to, or None. A plain network has the keys of its residual twin with option A."""
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
