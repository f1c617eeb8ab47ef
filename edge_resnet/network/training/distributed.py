"""The processes that train together, as started by torchrun, or a single one. Does not know about networks or images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from edge_resnet.core.errors import ConfigError

__all__ = ["World", "process_group", "resolve_device"]


@dataclass(frozen=True)
class World:
    """This process, ``rank`` of ``size``, and the ``device`` that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """The part of a batch of ``batch`` images that this process trains on."""
        each = batch // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of ``values`` over all processes, in float64."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def average_statistics(self, network: nn.Module) -> None:
        """Average the batch norm statistics over all processes: each has seen only its part of the images."""
        if self.size == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer.div_(self.size)

    def all_see(self, path: Path) -> bool:
        """Whether ``path`` exists for every process. Raises ConfigError if it does for some only."""
        self.wait()
        seen = int(self.total([float(path.exists())])[0])
        if 0 < seen < self.size:
            message = f"only {seen} of {self.size} processes can see {path}"
            raise ConfigError(message, hint="-o must be a folder that all machines share")
        return seen == self.size

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def process_group(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, if any, and leave them at the end.

    ``device``: ``auto`` is this process's GPU if there is one, else the CPU. Raises ConfigError if the device is not available.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    where = resolve_device(device)
    if size == 1 or dist.is_initialized():
        yield World(rank, size, where)
        return
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield World(rank, size, where)
    finally:
        dist.destroy_process_group()


def resolve_device(name: str) -> torch.device:
    """The device called ``auto``, ``cpu`` or ``cuda``; ``auto`` is a GPU if torch finds one. Raises ConfigError without it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {name!r}", hint="devices are auto, cpu and cuda") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("torch finds no GPU", hint="choose the device cpu, or install a driver and a torch built for CUDA")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.cuda.set_device(device)
    return device
