"""What runs a network: the protocol, the table of backends, and how one is opened. Knows no library by itself.

A new backend is one file in this folder and one line in ``BACKENDS``; the conformance suite iterates the table.
"""
from __future__ import annotations

from types import TracebackType
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Backend", "Images", "Logits"]

#: (N, H, W, 3) uint8 RGB, already resized and cropped.
Images: TypeAlias = npt.NDArray[np.uint8]
#: (N, classes) float32.
Logits: TypeAlias = npt.NDArray[np.float32]


class Backend(Protocol):
    """A network ready to run. A context manager; ``close`` may be called twice and frees everything."""

    #: The name in the table, for example ``onnxruntime``.
    name: str
    #: Number of classes, the width of the logits.
    classes: int

    def infer(self, images: Images) -> Logits:
        """Run (N, H, W, 3) uint8 RGB through the network.

        Returns logits (N, classes) float32 that belong to the caller: a later call does not change them.
        Raises ConfigError where the shape or dtype is not the network's, BackendError where the device fails.
        """
        ...

    def close(self) -> None:
        """Free the device's memory; harmless when repeated."""
        ...

    def __enter__(self) -> Backend: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
