"""Finds the networks in a checkpoint: which dicts hold one, under which prefix, and which of several is taken.

Knows the habits of training scripts, not files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from edge_resnet.core.errors import WeightsError
from edge_resnet.network.keylayouts import to_torchvisions_keys
from edge_resnet.network.weightfile import shown

__all__ = ["HeldNetwork", "StateDict", "choose", "held_networks"]

StateDict = dict[str, torch.Tensor]

#: Every network that can be built has this key; what stands before it is the prefix of the module that contains the network.
_ANCHOR = re.compile(r"^((?:.*[./])?)layer1\.0\.conv1\.weight$")
_STATISTICS = "layer1.0.bn1.running_var"
#: Names of the classifier: torchvision's, CIFAR repositories', mmpretrain's, and others'.
_HEADS = ("fc", "linear", "head.fc", "classifier", "head", "last_linear")
#: Wrappers that add a name but no meaning: DataParallel and AveragedModel, torch.compile.
_TRANSPARENT = frozenset({"module", "_orig_mod"})
#: Words that name an average of the weights over the training: timm, torchvision, torch's AveragedModel, our own trainer.
_AVERAGES = frozenset({"ema", "swa", "average", "averaged", "avg"})
#: Tensors that measure or train a network and compute nothing in it: torchmetrics' states and weights of losses.
_MEASURES = re.compile(
    r"loss|criteri|metric|accuracy|precision|recall|auroc|confusion|confmat|(?<![a-z])(?:acc|f1|auc|n_averaged)(?![a-z])", re.I
)
_MAX_DEPTH = 8
_BRIGHTNESS = (0.299, 0.587, 0.114)
_GREY = "the network takes one channel: it gets the brightness, 0.299 red + 0.587 green + 0.114 blue"
#: Of one dict: an ensemble has fewer, and which of more is meant is not clear anyway.
_MAX_NETWORKS = 64


@dataclass(frozen=True)
class HeldNetwork:
    """One network in a checkpoint.

    ``name``: the keys and the prefix that lead to it, joined by dots; empty if the file is the network. ``state``: its tensors
    under torchvision's keys. ``beside``: keys of tensors around it that may compute something. ``passed_over``: keys of metrics
    and losses. ``notes``: what was understood that a reader should know. ``averaged``: whether it is an average of weights over
    the training. ``unused``: why that average cannot be used, or empty. ``fault``: why the network cannot be read, or empty.
    ``grey``: whether its first convolution reads one channel, and has been widened to read the brightness of three.
    """

    name: str
    state: StateDict
    beside: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    averaged: bool = False
    unused: str = ""
    fault: str = ""
    grey: bool = False


@dataclass(frozen=True)
class _Head:
    """The network with its classifier under ``fc``. ``taken``: the classifier's keys, where it stands outside of the prefix."""

    state: StateDict
    taken: frozenset[str] = frozenset()
    note: str = ""
    fault: str = ""


def held_networks(content: Mapping[Any, object]) -> list[HeldNetwork]:
    """The networks in a checkpoint, in its order; if none is found, one with the largest state dict as it is."""
    dicts = list(_state_dicts(content))
    found = [network for name, state in dicts for network in _networks_of(name, state)]
    whole = [network for network in found if _STATISTICS in network.state]  # a momentum has the keys of the parameters alone
    if whole or found:
        return whole or found
    name, state = max(dicts, key=lambda one: len(one[1]), default=("", {}))
    return [HeldNetwork(name, state)]


def choose(networks: list[HeldNetwork], needed: StateDict, wanted: str, origin: str) -> HeldNetwork:
    """The network called ``wanted``; else the only one; else, of a network and its average over the training, the average.

    Networks that do not fit ``needed`` count only if none fits. Raises WeightsError that names them where it is not clear which
    is meant, and where tensors around the network may compute something that would be lost.
    """
    pool = [network for network in networks if _is_called(network, wanted)] if wanted else _candidates(networks, needed)
    if len(pool) != 1:
        listed = ", ".join(network.name or "the file itself" for network in networks)
        fault = f"{wanted} {'is not clear' if pool else 'is not there'}" if wanted else "it is not clear which network is meant"
        one_of = f"choose one of them as FILE#NAME, for example {_example(origin, pool or networks)}"
        hint = one_of if any(network.name for network in networks) else f"the file is one network: --weights {origin}"
        raise WeightsError(f"weights {origin}: {fault}, of {listed}", hint=hint)
    chosen = pool[0]
    if chosen.fault:
        raise WeightsError(f"weights {origin}: the network {chosen.fault}", hint="save the state dict of the network alone")
    if chosen.beside and not wanted:
        raise WeightsError(
            f"weights {origin}: {_some(chosen.beside)} stand beside the network {chosen.name}; what they compute would be lost",
            hint=f"{_example(origin, pool)} takes the network alone",
        )
    return chosen


def _candidates(networks: list[HeldNetwork], needed: StateDict) -> list[HeldNetwork]:
    """Those that may be meant by a file's name alone: one, unless it is not clear."""
    pool = [network for network in networks if _fits(network.state, needed)] or networks
    if len(pool) == 2 and sum(network.averaged for network in pool) == 1:
        return [network for network in pool if network.averaged != any(other.unused for other in pool)]
    alike = all(_equal(network.state, pool[0].state) for network in pool[1:])
    return pool[:1] if alike else pool


def _some(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _example(origin: str, networks: list[HeldNetwork]) -> str:
    named = next((network.name for network in networks if network.name), "NAME")
    return f"{origin}#{named}"


def _is_called(network: HeldNetwork, wanted: str) -> bool:
    """Whether the name contains the parts of ``wanted`` in a row. ``ema`` also calls the average by another name."""
    parts, asked = network.name.split("."), wanted.split(".")
    starts = range(len(parts) - len(asked) + 1)
    return any(parts[at : at + len(asked)] == asked for at in starts) or (wanted == "ema" and network.averaged)


def _fits(state: StateDict, needed: StateDict) -> bool:
    shapes = {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}
    return shapes == {key: value.shape for key, value in needed.items()}


def _equal(left: StateDict, right: StateDict) -> bool:
    return left.keys() == right.keys() and all(
        left[key] is right[key] or (left[key].shape == right[key].shape and bool(torch.equal(left[key], right[key])))
        for key in left
    )


def _state_dicts(content: Mapping[Any, object]) -> Iterator[tuple[str, StateDict]]:
    """The dicts with tensors in a checkpoint, by the keys that lead to them. A dict may contain itself."""
    waiting: list[tuple[tuple[str, ...], Mapping[Any, object]]] = [((), content)]
    seen = {id(content)}
    while waiting:
        path, one = waiting.pop(0)
        tensors = {shown(str(key)): value for key, value in one.items() if isinstance(value, torch.Tensor)}
        if tensors:
            yield ".".join(path), to_torchvisions_keys(tensors)
        for key, value in one.items():
            if isinstance(value, Mapping) and id(value) not in seen and len(path) < _MAX_DEPTH:
                seen.add(id(value))
                waiting.append(((*path, shown(str(key))), value))


def _networks_of(name: str, state: StateDict) -> Iterator[HeldNetwork]:
    """The networks in one dict, each under a prefix of its own."""
    prefixes = tuple(match[1] for key in state if (match := _ANCHOR.match(key)))[:_MAX_NETWORKS]
    outer = {key: value for key, value in state.items() if not key.startswith(prefixes)}
    for prefix in prefixes:
        within = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
        inner = {key: value for key, value in state.items() if key.startswith(prefix) and not key.startswith(within)}
        measures = [key for key in inner if _MEASURES.search(key.removeprefix(prefix))]
        head = _with_head({key.removeprefix(prefix): inner[key] for key in inner if key not in measures}, outer, prefix)
        measures += [key for key in outer if _MEASURES.search(key)]
        around = [key for key, value in outer.items() if value.is_floating_point() or value.is_complex()]
        parts = [part for part in (*name.split("."), *re.split(r"[./]", prefix)) if part and part not in _TRANSPARENT]
        count = _count_of_averages(state, prefix)
        averaged = count is not None or any(_AVERAGES & set(re.split(r"[._]", part.lower())) for part in parts)
        colours = _of_colours(head.state)
        yield HeldNetwork(
            name=".".join(parts),
            state=head.state | colours,
            beside=tuple(key for key in around if key not in measures and key not in head.taken),
            passed_over=tuple(key for key in measures if not key.endswith("n_averaged")),
            notes=tuple(note for note in (head.note, _GREY if colours else "") if note),
            averaged=averaged,
            unused=_why_unused(count, head.state) if averaged else "",
            fault=head.fault,
            grey=bool(colours),
        )


def _of_colours(state: StateDict) -> StateDict:
    """A first convolution of one channel as one of red, green and blue, which sees their brightness (ITU-R BT.601, as Pillow).

    It computes the same of a grey image in RGB, whose channels are equal, where all three are normalised alike.
    """
    first = {key: state[key] for key in ("conv1.weight", "conv1.0.weight") if key in state}
    grey = {key: value for key, value in first.items() if value.ndim == 4 and value.shape[1] == 1 and value.is_floating_point()}
    return {key: value * value.new_tensor(_BRIGHTNESS).view(1, 3, 1, 1) for key, value in grey.items()}


def _count_of_averages(state: StateDict, prefix: str) -> torch.Tensor | None:
    """AveragedModel's counter, which stands beside one of the modules that contain the network."""
    parents = [prefix[: match.end()] for match in re.finditer(r"[./]", prefix)] + [""]
    return next((state[key] for parent in parents if (key := f"{parent}n_averaged") in state), None)


def _why_unused(count: torch.Tensor | None, network: StateDict) -> str:
    """Why an average cannot be used: it is still the copy that training started with, as a whole or in its batch norms."""
    if count is not None and count.numel() == 1 and not count.item():
        return "has averaged nothing yet"
    variances = [value for key, value in network.items() if key.endswith("running_var")]
    if variances and all(bool((value == 1).all()) for value in variances):
        return "has batch norms that have seen no image (torch.optim.swa_utils.update_bn)"
    return ""


def _with_head(inner: StateDict, outer: StateDict, prefix: str) -> _Head:
    """Rename a network's keys to torchvision's; ``outer`` may hold a classifier that stands beside the network's prefix."""
    state = {key.replace(".shortcut.", ".downsample."): value for key, value in inner.items()}
    if len(state) < len(inner):
        return _Head(state, fault="contains both shortcut and downsample, which name the same tensors")
    heads = [head for head in _HEADS if any(key.startswith(f"{head}.") for key in state)]
    heads = [head for head in heads if not any(other.startswith(f"{head}.") for other in heads)]
    if len(heads) > 1:
        return _Head(state, fault=f"contains two classifiers, {heads[0]} and {heads[1]}")
    if heads:
        return _renamed_head(state, heads[0])
    parents = [prefix[: match.end()] for match in re.finditer(r"[./]", prefix[:-1])] + [""]
    for parent, head in product(parents, _HEADS):
        keys = {f"{parent}{head}.{kind}" for kind in ("weight", "bias")}
        if keys == {key for key in outer if key.startswith(f"{parent}{head}.")}:
            moved = {f"fc.{key.rpartition('.')[2]}": outer[key] for key in sorted(keys)}
            return _Head(state | moved, frozenset(keys), f"{parent}{head} is taken as the classifier fc")
    return _Head(state)


def _renamed_head(state: StateDict, head: str) -> _Head:
    """The classifier under ``fc``: a linear layer, alone or the only layer with tensors in a Sequential."""
    own = {key: key.removeprefix(f"{head}.") for key in state if key.startswith(f"{head}.")}
    layers = {name.rpartition(".")[0] for name in own.values()}
    layer = layers.pop()
    if layers or not re.fullmatch(r"\d*", layer):
        return _Head(state)
    renamed = {f"fc.{own[key].rpartition('.')[2]}" if key in own else key: value for key, value in state.items()}
    note = f"{head}.{layer} is taken as the classifier fc, without the layers around it (a dropout computes nothing)"
    return _Head(renamed, note=note if layer else "")
