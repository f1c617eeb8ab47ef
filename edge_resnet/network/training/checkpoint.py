"""Checkpoints of a training: its whole state in one safetensors file, without pickle. Does not know about images or schedules."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edge_resnet.core.errors import ConfigError, WeightsError
from edge_resnet.core.files import replace_files
from edge_resnet.network.training.options import EpochRecord, TrainOptions

__all__ = ["CHECKPOINT", "WEIGHTS", "StateDict", "TrainState", "read_checkpoint", "save_weights", "write_checkpoint"]

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"

StateDict: TypeAlias = dict[str, torch.Tensor]

_SCHEMA = 1
#: The state dicts of a TrainState.
_GROUPS = ("network", "momentum", "average", "best")
#: Options that may change on resume: they affect the duration and the tests, but no step that was done.
_FREE = frozenset({"epochs", "max_steps", "patience", "keep", "tensorboard", "workers", "test_every", "device"})


@dataclass(frozen=True)
class TrainState:
    """The state of a training after a whole epoch.

    ``network``, ``average`` and ``best`` are state dicts. ``momentum``: the optimizer's buffers by parameter name. ``warm_up``:
    the errors that the warm-up averages, None if it is over. ``data``: the name and size of the training set.
    """

    options: TrainOptions
    records: tuple[EpochRecord, ...]
    network: StateDict
    momentum: StateDict
    average: StateDict = field(default_factory=dict)
    best: StateDict = field(default_factory=dict)
    warm_up: tuple[float, ...] | None = None
    data: str = ""
    seconds: float = 0.0


def write_checkpoint(path: Path, state: TrainState) -> None:
    """Replace the checkpoint atomically. Raises OSError and leaves the old one unchanged if it cannot be written."""
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group in _GROUPS
        for name, tensor in getattr(state, group).items()
    }
    notes = {
        "schema": _SCHEMA,
        "options": asdict(state.options),
        "records": [asdict(record) for record in state.records],
        "warm_up": state.warm_up,
        "data": state.data,
        "seconds": state.seconds,
    }
    _save(path, tensors, {"edge-resnet": json.dumps(notes)})


def read_checkpoint(path: Path, fresh: TrainState) -> TrainState:
    """Read a checkpoint to resume the training whose initial state is ``fresh``.

    Raises WeightsError if the file is damaged or of another network, ConfigError if the images differ, or an option that
    affects the steps already done.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads(file.metadata()["edge-resnet"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if notes["schema"] != _SCHEMA:
            raise WeightsError(f"{path} has schema {notes['schema']}, this version reads {_SCHEMA}", hint="restart the training")
        groups = {group: _group(tensors, group) for group in _GROUPS}
        records = tuple(EpochRecord(**record) for record in notes["records"])
        options = TrainOptions(**notes["options"])
        warm_up = None if notes["warm_up"] is None else tuple(notes["warm_up"])
        state = TrainState(options, records, **groups, warm_up=warm_up, data=notes["data"], seconds=notes["seconds"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        message = f"{path} is damaged or not a checkpoint ({error})"
        raise WeightsError(message, hint="delete it and restart the training, or restore a copy") from error
    _refuse_other_network(path, state.network, fresh.network)
    _refuse_other_options(path, state, fresh)
    return state


def save_weights(path: Path, network: Mapping[str, torch.Tensor], notes: Mapping[str, str]) -> None:
    """Write a state dict for ``build --weights``. Raises OSError and leaves an existing file unchanged if it cannot."""
    _save(path, {name: tensor.detach().cpu().contiguous() for name, tensor in network.items()}, dict(notes))


def _save(path: Path, tensors: StateDict, notes: dict[str, str]) -> None:
    def write(part: Path) -> None:
        try:
            save_file(tensors, part, metadata=notes)
            _sort_notes(part)
        except SafetensorError as error:  # it wraps the system's error: a full disk, a missing permission
            raise OSError(str(error)) from error

    replace_files({path: write})


def _sort_notes(path: Path) -> None:
    """Put the metadata of a safetensors file in order: its library writes them in another one each time."""
    with path.open("r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
        assert len(text) == size
        file.seek(8)
        file.write(text)


def _group(tensors: StateDict, group: str) -> StateDict:
    return {name.removeprefix(f"{group}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{group}/")}


def _refuse_other_network(path: Path, found: Mapping[str, torch.Tensor], needed: Mapping[str, torch.Tensor]) -> None:
    shapes, wanted = ({name: tuple(t.shape) for name, t in state.items()} for state in (found, needed))
    if shapes != wanted:
        key = next(name for name in [*wanted, *shapes] if shapes.get(name) != wanted.get(name))
        message = f"checkpoint {path} is of another network: {key} is {shapes.get(key, 'absent')} there"
        hint = "use the same options as before, or another folder"
        raise WeightsError(f"{message}, {wanted.get(key, 'absent')} here", hint=hint)


def _refuse_other_options(path: Path, state: TrainState, fresh: TrainState) -> None:
    before, now = asdict(state.options), asdict(fresh.options)
    for name, value in now.items():
        if name not in _FREE and before[name] != value:
            message = f"checkpoint {path} was trained with {name} {before[name]}, not {value}"
            raise ConfigError(message, hint="use the same options as before, or another folder")
    if state.data != fresh.data:
        message = f"checkpoint {path} was trained on {state.data}, not on {fresh.data}"
        raise ConfigError(message, hint="use the same images as before, or another folder")
