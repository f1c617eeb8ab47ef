"""Moving coloured discs, seeded: frames for trying a pipeline without a camera. Does not know about files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources.pace import Pace
from edge_resnet.streaming.sources.uri import Range, read_options

__all__ = ["COLOURS", "SyntheticSource"]

#: Name → BGR of the disc; frame i of seed s shows ``SyntheticSource.label(i)``.
COLOURS = {"red": (40, 40, 220), "green": (60, 200, 60), "blue": (220, 80, 40), "yellow": (40, 210, 230)}
#: Frames for which a disc keeps its colour: long enough for smoothing.
HOLD = 30
#: The rate at which frames would follow each other if they were not as fast as they are read: for recordings of them.
_NOMINAL_FPS = 30
_SIZE = (1, 8192)
_OPTIONS = {
    "frames": Range(300, 0, 999_999_999),
    "width": Range(640, *_SIZE),
    "height": Range(480, *_SIZE),
    "seed": Range(0, 0, 999_999_999),
    "fps": Range(0, 0, 1000, whole=False),
}


class SyntheticSource:
    """``synthetic://?frames=300&width=640&height=480&seed=0``: as fast as it is read; ``frames=0`` never ends.

    With ``fps=30`` it is ``live``: each frame comes when it is due, and that is its time of capture.
    """

    dropped = 0

    def __init__(self, uri: str) -> None:
        before, _, query = uri.removeprefix("synthetic://").partition("?")
        if before:
            raise SourceError(f"synthetic source: {before} is not valid", hint="options follow a ?: synthetic://?frames=100")
        options = read_options("synthetic source", query, _OPTIONS)
        self._frames, self._seed = int(options["frames"]), int(options["seed"])
        self._size = int(options["width"]), int(options["height"])
        self._fps = options["fps"]
        self.live = self._fps > 0
        self._pace = Pace()
        rng = np.random.default_rng(self._seed)
        self._phase = rng.uniform(0, 2 * np.pi, 2)
        x, y = np.meshgrid(np.linspace(0, 1, self._size[0]), np.linspace(0, 1, self._size[1]))
        shade = 90 + 40 * np.sin(6 * x + self._phase[0]) + 30 * np.cos(5 * y + self._phase[1])
        self._ground = np.repeat(shade.astype(np.uint8)[..., None], 3, axis=2)
        self._radius = max(1, min(self._size) // 4)
        # For each row of the disc, its extent to both sides of the centre.
        rows = np.arange(1 - self._radius, self._radius)
        reach = np.ceil(np.sqrt(self._radius**2 - rows**2)).astype(int) - 1
        self._rows = tuple(zip(rows.tolist(), reach.tolist(), strict=True))

    def label(self, index: int) -> str:
        """The colour of the disc in frame ``index``."""
        names = tuple(COLOURS)
        return names[(self._seed + index // HOLD) % len(names)]

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._frames == 0 or index < self._frames:
            image = self._draw(index)
            captured_ns = self._pace.wait(index / self._fps) if self.live else time.monotonic_ns()
            if self._pace.stopped:
                return
            yield Frame(image, index, captured_ns, "synthetic", round(index * 1e9 / (self._fps or _NOMINAL_FPS)))
            index += 1

    def close(self) -> None:
        """End the iteration, in whichever thread."""
        self._pace.stop()

    def __enter__(self) -> SyntheticSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        width, height = self._size
        turn = 2 * np.pi * index / 120
        centre_x = int(width * (0.5 + 0.2 * np.sin(turn + self._phase[0])))
        centre_y = int(height * (0.5 + 0.2 * np.cos(turn + self._phase[1])))
        image: npt.NDArray[np.uint8] = self._ground.copy()
        colour = np.tile(np.array(COLOURS[self.label(index)], np.uint8), 2 * self._radius)
        lines = image.reshape(height, 3 * width)
        for row, reach in self._rows:
            if 0 <= centre_y + row < height:
                left, right = max(0, centre_x - reach), min(width, centre_x + reach + 1)
                lines[centre_y + row, 3 * left : 3 * right] = colour[: 3 * (right - left)]
        return image
