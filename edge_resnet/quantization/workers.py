"""Threads that each run torch on one core. Does not know what they compute.

Torch's own threads wait for each other after every operation, spinning: with a second busy process on the same two cores, a pass
of CIFAR ResNet-20 took 30 times the processor time. Threads that each run whole batches meet once per batch.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch

__all__ = ["Workers", "workers"]

Given = TypeVar("Given")
Made = TypeVar("Made")


class Workers:
    """A pool of ``count`` threads, one per core that this process may use."""

    def __init__(self, pool: ThreadPoolExecutor, count: int) -> None:
        self._pool = pool
        self.count = count

    def map(self, compute: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
        """``compute(item)`` of each item, in order. At most ``count`` items are held at a time, computed or not."""
        remaining = iter(items)
        while group := list(islice(remaining, self.count)):
            yield from list(self._pool.map(compute, group))


@contextmanager
def workers(maximum: int | None = None) -> Iterator[Workers]:
    """Workers while the block runs; ``maximum`` limits their number. The block itself has one of torch's threads meanwhile."""
    count = min(len(os.sched_getaffinity(0)), maximum or os.cpu_count() or 1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield Workers(pool, count)
    finally:
        torch.set_num_threads(before)
        _return_memory()


def _return_memory() -> None:
    """Give what the threads freed back to the system: glibc keeps it for each of them, 600 MiB after learning ResNet-50."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
