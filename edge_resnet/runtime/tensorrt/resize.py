"""Camera frames → the network's input, on the GPU: the same bytes as those of preprocess_bgr.

Only the part of a frame that the crop depends on is copied to the GPU. Does not know about networks, PyCUDA or cuda.core.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.preprocess import ImageArray, check_image, is_down_first, plan_crop
from edge_resnet.runtime.tensorrt.cuda import Cuda, DeviceBuffer, Kernel, PinnedBuffer
from edge_resnet.runtime.tensorrt.resampling import Weights, resampling_weights

__all__ = ["GpuResize"]

#: Number of frame sizes whose weights are kept: a camera has one.
_SIZES = 8
#: Threads of a block, 32 pixels of three values: whole warps, and 224 pixels are seven blocks.
_BLOCK = 96
_WORD = 4
_ARGUMENTS = {"resize_rows": "PiPiP", "resize_columns": "PiPiP"}


@dataclass(eq=False)
class _Plan:
    """What the kernels need for frames of one size. ``pitch``: bytes from one row of the copied part to the next.

    ``down_first``: the order of the passes. ``between``: bytes of the result of the first.
    """

    down: Weights
    across: Weights
    pitch: int
    rows: int
    down_first: bool
    between: int
    tables: tuple[DeviceBuffer, ...] = ()

    def free(self) -> None:
        for table in self.tables:
            table.free()
        self.tables = ()


class GpuResize:
    """Queues the preprocessing of at most ``max_frames`` frames on one stream. ``module``: from Kernels.

    The next call writes the same pinned memory, so the stream must be synchronized first. The CUDA context must be current for
    every call, ``free`` included; the block that made it current maps the errors of CUDA.
    """

    def __init__(self, cuda: Cuda, module: bytes, spec: Preprocess, max_frames: int) -> None:
        self._cuda = cuda
        self._spec = spec
        self._rows: Kernel | None
        self._columns: Kernel | None
        self._rows, self._columns = cuda.kernels(module, _ARGUMENTS)
        self._plans: OrderedDict[tuple[int, int], _Plan] = OrderedDict()
        #: One per frame of a batch: the copy of a frame may still run while the next frame is written.
        self._staging: list[PinnedBuffer | None] = [None] * max_frames
        #: The result of the first pass; a stream works on one frame at a time.
        self._between: DeviceBuffer | None = None

    def queue(self, frames: Sequence[ImageArray], destination: int, stream: Any) -> None:
        """Write frames (H, W, 3) uint8 BGR of any sizes as (N, crop, crop, 3) uint8 RGB to the device address ``destination``.

        The caller may reuse the frames when this returns; the result is complete once the stream has been synchronized. A new
        or larger size allocates memory and synchronizes the stream. Raises ConfigError for too many frames and for another shape
        or dtype, before anything is queued.
        """
        if not 0 < len(frames) <= len(self._staging):
            raise ConfigError(f"between 1 and {len(self._staging)} frames can be resized at once, not {len(frames)}")
        for frame in frames:
            check_image(frame)
        plans = self._prepared([frame.shape[:2] for frame in frames], stream)
        for index, (frame, plan) in enumerate(zip(frames, plans, strict=True)):
            self._queue(frame, plan, self._staging[index], destination + index * 3 * self._spec.crop**2, stream)

    def free(self) -> None:
        """Free the GPU's memory; may be called again. The stream must have been synchronized."""
        for plan in self._plans.values():
            plan.free()
        self._plans.clear()
        for buffer in (*self._staging, self._between):
            if buffer is not None:
                buffer.free()
        self._staging = [None] * len(self._staging)
        self._between = self._rows = self._columns = None

    def _queue(self, frame: ImageArray, plan: _Plan, staging: PinnedBuffer | None, destination: int, stream: Any) -> None:
        assert staging is not None
        assert self._between is not None
        assert self._rows is not None
        assert self._columns is not None
        crop, row, (down, across) = self._spec.crop, 3 * self._spec.crop, plan.tables
        part = frame[plan.down.low : plan.down.high, plan.across.low : plan.across.high]
        np.ndarray(part.shape, np.uint8, staging.host, strides=(plan.pitch, 3, 1))[:] = part
        staging.to_device(stream, plan.rows * plan.pitch)
        begin, middle, end = staging.address, self._between.address, destination
        # Rows are the first dimension of the grid: the second is limited to 65,535.
        if plan.down_first:
            self._columns.launch((crop, _tiles(plan.pitch)), _BLOCK, stream, begin, plan.pitch, down.address, crop, middle)
            self._rows.launch((crop, _tiles(row)), _BLOCK, stream, middle, plan.pitch // _WORD, across.address, crop, end)
        else:
            self._rows.launch((plan.rows, _tiles(row)), _BLOCK, stream, begin, plan.pitch // _WORD, across.address, crop, middle)
            self._columns.launch((crop, _tiles(row)), _BLOCK, stream, middle, row, down.address, crop, end)

    def _prepared(self, sizes: list[tuple[int, int]], stream: Any) -> list[_Plan]:
        """The plan of each size (height, width), with all the memory that the frames need."""
        plans = {size: self._plans.get(size) or self._plan(size) for size in dict.fromkeys(sizes)}
        staging = [plans[size].rows * plans[size].pitch for size in sizes]
        between = max(plan.between for plan in plans.values())
        if any(not plan.tables for plan in plans.values()) or self._lacks(staging, between):
            # Nothing is freed that the stream may still use, and no table counts as copied before it is.
            stream.synchronize()
            self._forget(keep=plans)
            self._grow(staging, between)
            self._upload(plans, stream)
        for size in plans:
            self._plans.move_to_end(size)
        return [plans[size] for size in sizes]

    def _plan(self, size: tuple[int, int]) -> _Plan:
        down, across = (
            resampling_weights(axis, self._spec.crop, self._spec.interpolation) for axis in plan_crop(*size, self._spec)
        )
        pitch, rows = -(-3 * (across.high - across.low) // _WORD) * _WORD, down.high - down.low
        turned = is_down_first(*size, self._spec)
        return _Plan(down, across, pitch, rows, turned, self._spec.crop * pitch if turned else rows * 3 * self._spec.crop)

    def _lacks(self, staging: list[int], between: int) -> bool:
        """Whether any buffer is smaller than that many bytes."""
        if self._between is None or self._between.size < between:
            return True
        return any(buffer is None or len(buffer.host) < size for size, buffer in zip(staging, self._staging, strict=False))

    def _grow(self, staging: list[int], between: int) -> None:
        for index, size in enumerate(staging):
            buffer = self._staging[index]
            if buffer is None or len(buffer.host) < size:
                self._staging[index] = None
                if buffer is not None:
                    buffer.free()
                self._staging[index] = self._cuda.buffer((size,), np.uint8)
        old = self._between
        if old is None or old.size < between:
            self._between = None
            if old is not None:
                old.free()
            self._between = self._cuda.memory(between)

    def _forget(self, keep: dict[tuple[int, int], _Plan]) -> None:
        """Free the least recently used plans if there would be too many."""
        new = sum(size not in self._plans for size in keep)
        for size in [size for size in self._plans if size not in keep][: max(0, len(self._plans) + new - _SIZES)]:
            self._plans.pop(size).free()

    def _upload(self, plans: dict[tuple[int, int], _Plan], stream: Any) -> None:
        new = {size: plan for size, plan in plans.items() if not plan.tables}
        try:
            for plan in new.values():
                for weights in (plan.down, plan.across):
                    table = self._cuda.memory(weights.table.nbytes)
                    plan.tables = (*plan.tables, table)
                    table.fill(weights.table, stream)
            stream.synchronize()
        except BaseException:
            for plan in new.values():
                plan.free()
            raise
        self._plans.update(new)


def _tiles(values: int) -> int:
    """The number of blocks for a row of so many values."""
    return -(-values // _BLOCK)
