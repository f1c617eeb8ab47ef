"""Weights into a network: torchvision's by name, a file's whatever its keys are called. Knows nothing of export."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch

from edge_resnet.artifact import sha256_of
from edge_resnet.errors import WeightsError
from edge_resnet.models.download import download
from edge_resnet.models.resnet import ResNet
from edge_resnet.spec import ModelSpec, Progress

__all__ = ["default_address", "load_weights"]

State = dict[str, torch.Tensor]

#: Where repositories put the state dict inside a checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params")
#: Prefixes that wrappers of a network leave on every key: DataParallel, torch.compile, Lightning, and whole-model attributes.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
#: Names that CIFAR repositories use for torchvision's.
_RENAMES = ((re.compile(r"^linear\."), "fc."), (re.compile(r"\.shortcut\."), ".downsample."))
_FORMATS = "a .pth, .th, .pt or .safetensors file with a state dict"


def load_weights(network: ResNet, spec: ModelSpec, weights: str, *, progress: Progress | None = None) -> str:
    """Fill ``network`` with ``default`` (torchvision's IMAGENET1K_V1), ``random`` (what it has), or the file of that path.

    Returns the id for the manifest: ``IMAGENET1K_V1``, ``random`` or ``sha256:…``. Raises WeightsError where the weights cannot
    be had, cannot be read without running code, do not fit, or are not finite.
    """
    if weights == "random":
        return "random"
    if weights == "default":
        url, prefix = default_address(spec)
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        _fill(network, _read(download(url, path, prefix, progress=progress)), str(path))
        return "IMAGENET1K_V1"
    path = Path(weights)
    _fill(network, _read(path), str(path))
    return f"sha256:{sha256_of(path)}"


def default_address(spec: ModelSpec) -> tuple[str, str]:
    """URL and leading hex digits of the sha256 of torchvision's IMAGENET1K_V1 weights for this network."""
    if spec.family != "imagenet" or spec.shortcut != "B" or spec.plain or spec.classes != 1000:
        raise WeightsError(
            f"there are no default weights for {spec.name} with shortcut {spec.shortcut} and {spec.classes} classes",
            hint="--weights PATH takes a file",
        )
    from torchvision.models import get_model_weights

    url: str = get_model_weights(f"resnet{spec.depth}")["IMAGENET1K_V1"].url
    found = re.search(r"-([0-9a-f]{8,})\.", url)  # torchvision puts the first digits of the hash into the name
    return url, found.group(1) if found else ""


def _read(path: Path) -> State:
    """The tensors of a weights file. Nothing in it is executed."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(f"weights {path}: it {what}", hint=f"--weights takes {_FORMATS}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return _unwrapped(torch.load(path, map_location="cpu", weights_only=True), path)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error):
            raise WeightsError(
                f"weights {path} hold code or are not weights", hint="save the state dict alone, best as .safetensors"
            ) from error
        raise WeightsError(f"weights {path} cannot be read: {_first_line(error)}", hint=f"--weights takes {_FORMATS}") from error
    except WeightsError:
        raise
    except (
        Exception
    ) as error:  # torch and safetensors raise RuntimeError, EOFError, KeyError, SafetensorError and more for damage
        raise WeightsError(
            f"weights {path} cannot be read: {_first_line(error)}", hint="is the file whole? fetch it again"
        ) from error


def _unwrapped(content: object, path: Path) -> State:
    """The state dict inside a checkpoint, however deep the repository put it."""
    while isinstance(content, dict):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            return {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        content = inner
    raise WeightsError(f"weights {path} hold a {type(content).__name__}, not a state dict", hint=f"--weights takes {_FORMATS}")


def _fill(network: ResNet, found: State, origin: str) -> None:
    state = _renamed(found)
    wanted = network.state_dict()
    # some savers leave this counter out, and inference never reads it
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    needed = {key: value for key, value in wanted.items() if not key.endswith("num_batches_tracked")}
    _refuse_mismatch(state, needed, origin)
    broken = next((key for key, value in state.items() if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise WeightsError(
            f"weights {origin}: {broken} holds a value that is not finite", hint="the training diverged; use another file"
        )
    network.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()}, strict=False)


def _renamed(state: State) -> State:
    """Keys as torchvision writes them."""
    for prefix in _PREFIXES * 2:  # twice: wrappers nest
        if state and all(key.startswith(prefix) for key in state):
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
        raise WeightsError(f"weights {origin} do not fit the network: {', '.join(faults)}", hint=_looks_like(state))


def _looks_like(state: State) -> str:
    """The options of the network that a state dict was made for, as far as its keys tell."""
    blocks = [len({key.split(".")[1] for key in state if key.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4)]
    stem = state.get("conv1.weight")
    if not blocks[0] or stem is None:
        return f"--weights takes {_FORMATS} of a ResNet"
    per_block = 3 if "layer1.0.conv3.weight" in state else 2
    depth = sum(blocks) * per_block + 2
    family = "cifar" if stem.shape[-1] == 3 else "imagenet"
    words = [f"--family {family} --depth {depth}"]
    projected = any(".downsample." in key for key in state)
    if family == "cifar" and not projected:
        words.append("--shortcut A")
    if "layer1.1.downsample.0.weight" in state:
        words.append("--shortcut C")
    if "fc.weight" in state:
        words.append(f"--classes {state['fc.weight'].shape[0]}")
    return f"the file looks like {' '.join(words)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
