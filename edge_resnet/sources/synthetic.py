"""Moving coloured discs, seeded: frames for trying a pipeline where there is no camera. Knows nothing of files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from types import TracebackType
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import SourceError
from edge_resnet.frame import Frame

__all__ = ["COLOURS", "SyntheticSource"]

#: Name → BGR of the disc; frame i of seed s shows ``SyntheticSource.label(i)``.
COLOURS = {"red": (40, 40, 220), "green": (60, 200, 60), "blue": (220, 80, 40), "yellow": (40, 210, 230)}
#: Frames for which one disc stays: long enough that an answer can settle.
HOLD = 30
_DEFAULTS = {"frames": 300, "width": 640, "height": 480, "seed": 0}
_LARGEST = 8192


class SyntheticSource:
    """``synthetic://?frames=300&width=640&height=480&seed=0``: as fast as they are read; ``frames=0`` never ends."""

    live = False
    dropped = 0

    def __init__(self, uri: str) -> None:
        options = _options(uri)
        self._frames, self._seed = options["frames"], options["seed"]
        self._size = options["width"], options["height"]
        rng = np.random.default_rng(self._seed)
        self._phase = rng.uniform(0, 2 * np.pi, 2)
        x, y = np.meshgrid(np.linspace(0, 1, self._size[0]), np.linspace(0, 1, self._size[1]))
        shade = 90 + 40 * np.sin(6 * x + self._phase[0]) + 30 * np.cos(5 * y + self._phase[1])
        self._ground = np.repeat(shade.astype(np.uint8)[..., None], 3, axis=2)

    def label(self, index: int) -> str:
        """The colour of the disc in frame ``index``."""
        names = tuple(COLOURS)
        return names[(self._seed + index // HOLD) % len(names)]

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._frames == 0 or index < self._frames:
            yield Frame(self._draw(index), index, time.monotonic_ns(), "synthetic")
            index += 1

    def close(self) -> None:
        """There is nothing to let go of."""

    def __enter__(self) -> SyntheticSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        width, height = self._size
        radius = max(1, min(self._size) // 4)
        turn = 2 * np.pi * index / 120
        centre_x = int(width * (0.5 + 0.2 * np.sin(turn + self._phase[0])))
        centre_y = int(height * (0.5 + 0.2 * np.cos(turn + self._phase[1])))
        top, left = max(0, centre_y - radius), max(0, centre_x - radius)
        image: npt.NDArray[np.uint8] = self._ground.copy()
        part = image[top : centre_y + radius, left : centre_x + radius]
        y, x = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
        part[(x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2] = np.array(COLOURS[self.label(index)], np.uint8)
        return image


def _options(uri: str) -> dict[str, int]:
    options = dict(_DEFAULTS)
    before, _, query = uri.removeprefix("synthetic://").partition("?")
    if before:
        raise SourceError(f"synthetic source: {before} is not understood", hint="options follow a ?: synthetic://?frames=100")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in options or not re.fullmatch("[0-9]{1,9}", value):
            raise SourceError(
                f"synthetic source: {name}={value} is not understood", hint=f"options are {', '.join(options)}, whole numbers"
            )
        options[name] = int(value)
    if not (1 <= options["width"] <= _LARGEST and 1 <= options["height"] <= _LARGEST):
        raise SourceError(
            f"synthetic source: width and height must lie in 1..{_LARGEST}", hint="for example ?width=640&height=480"
        )
    return options
