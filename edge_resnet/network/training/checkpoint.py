"""A training's memory on disk, in one safetensors file that nothing in is executed. Knows nothing of data and schedules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.files import replace_files
from edge_resnet.network.training.options import EpochRecord, TrainOptions

__all__ = ["CHECKPOINT", "WEIGHTS", "Memory", "read_checkpoint", "save_weights", "write_checkpoint"]

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"

State = dict[str, torch.Tensor]

_SCHEMA = 1
#: Options that may differ when a training goes on: they change what is looked at or how long it lasts, no step.
_FREE = frozenset({"epochs", "max_steps", "patience", "keep", "tensorboard", "workers", "test_every", "device"})


@dataclass(frozen=True)
class Memory:
    """Where a training stands after a whole epoch. ``network``, ``average`` and ``best`` are state dicts, ``momentum``
    the optimizer's buffers by parameter; ``warm_up`` the errors that it averages, None where it is over."""

    options: TrainOptions
    records: tuple[EpochRecord, ...]
    network: State
    momentum: State
    average: State = field(default_factory=dict)
    best: State = field(default_factory=dict)
    warm_up: tuple[float, ...] | None = None
    data: str = ""
    seconds: float = 0.0


def write_checkpoint(path: Path, memory: Memory) -> None:
    """Replace the checkpoint whole; raises OSError, and then the old one is still there."""
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group in _GROUPS
        for name, tensor in getattr(memory, group).items()
    }
    notes = {
        "schema": _SCHEMA,
        "options": asdict(memory.options),
        "records": [asdict(record) for record in memory.records],
        "warm_up": memory.warm_up,
        "data": memory.data,
        "seconds": memory.seconds,
    }
    _save(path, tensors, {"edge-resnet": json.dumps(notes)})


def read_checkpoint(path: Path, like: Memory) -> Memory:
    """Read a checkpoint that goes on from where ``like``, a fresh training, starts.

    Raises WeightsError where the file is damaged or of another network, ConfigError where an option differs that would change
    what has been done.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads(file.metadata()["edge-resnet"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if notes["schema"] != _SCHEMA:
            raise WeightsError(f"{path} has schema {notes['schema']}, this edge-resnet reads {_SCHEMA}", hint="start anew")
        groups = {group: _group(tensors, group) for group in _GROUPS}
        records = tuple(EpochRecord(**record) for record in notes["records"])
        options = TrainOptions(**notes["options"])
        warm_up = None if notes["warm_up"] is None else tuple(notes["warm_up"])
        memory = Memory(options, records, **groups, warm_up=warm_up, data=notes["data"], seconds=notes["seconds"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        message = f"checkpoint {path} is damaged or is none ({error})"
        raise WeightsError(message, hint="delete it and start anew, or put back a copy") from error
    _refuse_other_network(path, memory.network, like.network)
    _refuse_other_options(path, memory, like)
    return memory


def save_weights(path: Path, network: Mapping[str, torch.Tensor], notes: Mapping[str, str]) -> None:
    """Write a state dict for ``build --weights``; raises OSError and leaves what was there."""
    _save(path, {name: tensor.detach().cpu().contiguous() for name, tensor in network.items()}, dict(notes))


_GROUPS = ("network", "momentum", "average", "best")


def _save(path: Path, tensors: State, notes: dict[str, str]) -> None:
    def write(part: Path) -> None:
        try:
            save_file(tensors, part, metadata=notes)
        except SafetensorError as error:  # wraps what the system said: a full disk, a folder without permission
            raise OSError(str(error)) from error

    replace_files({path: write})


def _group(tensors: State, group: str) -> State:
    return {name.removeprefix(f"{group}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{group}/")}


def _refuse_other_network(path: Path, found: Mapping[str, torch.Tensor], needed: Mapping[str, torch.Tensor]) -> None:
    shapes, wanted = ({name: tuple(t.shape) for name, t in state.items()} for state in (found, needed))
    if shapes != wanted:
        key = next(name for name in [*wanted, *shapes] if shapes.get(name) != wanted.get(name))
        message = f"checkpoint {path} is of another network: {key} is {shapes.get(key, 'absent')} there"
        raise WeightsError(f"{message}, {wanted.get(key, 'absent')} here", hint="the same words as before, or another folder")


def _refuse_other_options(path: Path, memory: Memory, like: Memory) -> None:
    before, now = asdict(memory.options), asdict(like.options)
    for name, value in now.items():
        if name not in _FREE and before[name] != value:
            message = f"checkpoint {path} was trained with {name} {before[name]}, not {value}"
            raise ConfigError(message, hint="the same words as before, or another folder")
    if memory.data != like.data:
        message = f"checkpoint {path} was trained on {memory.data}, not on {like.data}"
        raise ConfigError(message, hint="the same images as before, or another folder")
