"""Loads weights into a network: torchvision's, a file in any of the usual key layouts, the Hub's. Does not know about export."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load
from torch import nn

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import FAMILIES, Layout, ModelSpec, Progress
from edge_resnet.network.pretrained import download, shipped_checkpoint
from edge_resnet.network.published import TORCHVISIONS, torchvision_weights
from edge_resnet.network.recognise import matching_spec, seems_to_be, without_counters
from edge_resnet.network.resnet import ResNet
from edge_resnet.network.statedict import HeldNetwork, StateDict, choose, held_networks
from edge_resnet.network.weightfile import FORMATS, read_weights_file

__all__ = ["default_address", "fill_network", "load_weights", "local_weights", "spec_in_file", "spec_of"]

_log = logging.getLogger(__name__)


def load_weights(network: ResNet, spec: ModelSpec, weights: str, *, progress: Progress | None = None) -> str:
    """Load ``weights`` into ``network``: ``default``, ``v1``, ``v2``, ``random``, or a file, or ``hf://REPO[/FILE][@REVISION]``.

    ``default`` is the checkpoint that ships with the package if there is one, else ``v1``: torchvision's IMAGENET1K_V1. ``#NAME``
    after a file takes one of its networks. ``random`` leaves the network as it is. Of a network and its average over the
    training the average is taken; what was chosen or passed over is logged as a warning. Returns the id for the manifest: the
    checkpoint's, ``IMAGENET1K_V1``, ``random`` or ``sha256:…``, with ``#NAME`` where the file holds several networks. Raises
    WeightsError if the weights cannot be downloaded, cannot be read without executing code, do not fit, or are not finite, and
    where it is not clear which of several networks is meant. If they fit a network with another number of classes,
    ``WeightsError.classes`` says which.
    """
    if weights == "random":
        return "random"
    if weights == "default" and (shipped := shipped_checkpoint(spec)) is not None:
        _fill(network, load(shipped.weights()), shipped.model.weights)
        return shipped.model.weights
    if weights in TORCHVISIONS:
        url, prefix = default_address(spec, weights)
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        _fill_from_file(network, download(url, path, prefix, progress=progress))
        return TORCHVISIONS[weights]
    path, wanted = file_and_name(local_weights(weights, progress=progress))
    name = _fill_from_file(network, path, wanted)
    return f"sha256:{sha256_of(path)}" + (f"#{name}" if name else "")


def local_weights(weights: str, *, progress: Progress | None = None) -> str:
    """``FILE#NAME`` of weights that are a file or ``hf://…``, which is downloaded. Raises what ``network.hub.fetch`` raises."""
    if not weights.startswith("hf://"):
        return weights
    from edge_resnet.network.hub import fetch

    found = fetch(weights, progress=progress)
    return f"{found.path}#{found.name}" if found.name else str(found.path)


def spec_in_file(weights: str) -> tuple[ModelSpec, bool]:
    """Which network ``FILE#NAME`` holds, with its family's input size, and whether it takes one channel (see ``statedict``).

    Raises WeightsError that names what it seems to be where it is no network that can be built, or where it is not clear which of
    several networks is meant.
    """
    path, wanted = file_and_name(weights)
    networks = held_networks(read_weights_file(path))
    known = [network for network in networks if matching_spec(network.state) is not None]
    held = choose(networks, without_counters((known or networks)[0].state), wanted, str(path))
    spec = matching_spec(held.state)
    if spec is None:
        seems = seems_to_be(held.state)
        fault = f"weights {path} are of no network that can be built" + (f": {seems}" if seems else "")
        raise WeightsError(fault, hint="edge-resnet models lists the networks")
    return replace(spec, input_size=FAMILIES[spec.family].input_size), held.grey


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
    _fill(network, choose(networks, without_counters(network.state_dict()), "", name).state, name)
    return network


def spec_of(network: nn.Module) -> ModelSpec:
    """Which network of He et al. 2015 a module is, by the names and shapes of its parameters (torchvision's layout).

    Its input size is the family's. Raises WeightsError where it is none of them.
    """
    networks = held_networks(dict(network.state_dict()))
    spec = matching_spec(without_counters(networks[0].state)) if len(networks) == 1 else None
    if spec is None:
        raise WeightsError(
            f"{type(network).__name__} is not one of the networks that can be built",
            hint="edge-resnet models lists them; torchvision's ResNets of depth 18 to 152 are among them",
        )
    return replace(spec, input_size=FAMILIES[spec.family].input_size)


def default_address(spec: ModelSpec, version: str = "default") -> tuple[str, str]:
    """The URL of torchvision's weights for this network, and the first hex digits of the file's sha256.

    ``version``: a key of ``TORCHVISIONS``.
    """
    url: str = torchvision_weights(spec, version).url
    found = re.search(r"-([0-9a-f]{8,})\.", url)  # torchvision puts the first digits of the hash in the file name
    return url, found.group(1) if found else ""


def _fill_from_file(network: ResNet, path: Path, wanted: str = "") -> str:
    """Load one of a file's networks, and log what was chosen. Returns its name where the file holds several."""
    networks = held_networks(read_weights_file(path))
    held = choose(networks, without_counters(network.state_dict()), wanted, str(path))
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
    state, needed = without_counters(found), without_counters(network.state_dict())
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
    fits = matching_spec(state)
    if fits is None:
        seems = seems_to_be(state)
        hint = f"{seems}{'; ' if seems else ''}weights are {FORMATS} of a network that `edge-resnet models` lists"
    elif fits.layout != Layout():
        hint = f"the file fits edge-resnet build --model {fits.name} --classes {fits.classes}"
    else:
        options = f"--family {fits.family} --depth {fits.depth} --shortcut {fits.shortcut} --classes {fits.classes}"
        hint = f"the file fits edge-resnet build {options}"
    message = f"weights {origin} do not fit the network: {', '.join(faults)}"
    raise WeightsError(message, hint=hint, classes=None if fits is None else fits.classes)
