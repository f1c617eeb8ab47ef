"""Frames with a low probability, saved to be labelled later. Does not know about training."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from functools import partial
from io import BytesIO
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from PIL import Image

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.files import lock
from edge_resnet.core.staging import replace_files, sweep
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.serialise import encode_json, prediction_fields, utc

__all__ = ["UncertainSink"]

#: As for calibration sets: without chroma subsampling.
_QUALITY = 95
_NAME = re.compile(r"(\d{6,})(_[0-9TZ.]+)?\.jpg")
_SOURCES = 1024
#: Seconds between two searches for images that are too old.
_SWEEP_S = 60.0


class _Saved(NamedTuple):
    """What is known of an image: the bytes of it and its line, and the time it was written, since 1970."""

    size: int
    at_s: float


class UncertainSink:
    """Saves a frame whose best probability (the smoothed answer's, if there is one) is below ``below``: as a JPEG file of full
    size and, beside it, ``NAME.json``, one line with file, source, frame, time, probability and top (the best three). So
    ``cat DIR/*.json`` lists all of them.

    At most one frame per source in ``every_s`` seconds: of a camera's capture, or of a recording's own time. Images and lines
    together stay below ``max_bytes``: the oldest are removed. With ``max_days`` those are removed, too, that are older by this
    machine's clock: when the sink is opened, and once a minute as long as predictions come. Names begin with a running number,
    which a later run continues: a clock that was set back does not change the order. Each file is written whole and synced to
    disk, or not at all; if the disk is full ``write`` fails, and the next frame is tried again. Two runs never use one folder:
    the second one is refused.
    """

    name = "uncertain"
    wants_frames = True

    def __init__(
        self,
        folder: Path,
        *,
        below: float = 0.5,
        every_s: float = 1.0,
        max_bytes: int = 1 << 30,
        max_days: float | None = None,
    ) -> None:
        if not 0 < below <= 1:
            raise ConfigError(f"a probability limit lies in (0, 1], not {below}", hint="0.5 is a good start")
        if not (isfinite(every_s) and every_s >= 0):
            raise ConfigError(f"images cannot be {every_s} seconds apart", hint="1 is a good start, 0 takes every frame")
        if max_bytes < 1:
            raise ConfigError(f"{max_bytes} bytes are too few for an image", hint="1 GiB is a good start")
        if max_days is not None and not (isfinite(max_days) and max_days > 0):
            raise ConfigError(f"images cannot be kept for {max_days} days", hint="--uncertain-days 30 keeps them for a month")
        self._folder = folder
        self._max_age_s = None if max_days is None else 86_400 * max_days
        self._swept_s = float("-inf")
        self._below = below
        self._every_ns = every_s * 1e9
        self._max_bytes = max_bytes
        self._saved_ns: dict[str, int] = {}
        self._saved: dict[str, _Saved] = {}
        self._total = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(folder, error) from error
        try:
            if not lock(self._lock):  # its numbers and its limit would be two runs'
                raise ConfigError(f"another run saves frames in {folder}", hint="name another folder: --record-uncertain DIR")
            self._find_saved()
            self._next = 1 + max((int(stem.split("_")[0]) for stem in self._saved), default=0)
            self._sweep()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise _unusable(folder, error) from error
            raise

    def write(self, prediction: Prediction, frame: Frame) -> None:
        """Save the frame if it is due. Raises ConfigError if it cannot be written."""
        with suppress(OSError):  # tried again in a minute
            self._sweep()
        best = prediction.answer or prediction.top[0]
        if best.probability >= self._below or not self._is_due(prediction.source, _time_ns(prediction, frame)):
            return
        stem = f"{self._next:06d}" + _stamp(prediction.wall_ns)
        image = _jpeg(frame)
        line = _line(prediction, f"{stem}.jpg", best.probability)
        size = len(image) + len(line)
        if size > self._max_bytes:
            hint = "raise --uncertain-max, or use smaller frames"
            raise ConfigError(f"an image of {size} bytes exceeds the limit of {self._max_bytes} bytes for all images", hint=hint)
        try:
            self._make_room(size)
            # The line first: an image without its line would be taken for a file of the user's.
            contents = {f"{stem}.json": line, f"{stem}.jpg": image}
            writers = {self._folder / name: partial(Path.write_bytes, data=data) for name, data in contents.items()}
            replace_files(writers, swept=True)
        except OSError as error:
            with suppress(OSError):
                (self._folder / f"{stem}.json").unlink(missing_ok=True)
            hint = "free some space, or name another folder: --record-uncertain DIR"
            raise ConfigError(f"cannot write to {self._folder}: {error.strerror}", hint=hint) from error
        self._next += 1
        self._saved[stem] = _Saved(size, time.time())
        self._total += size
        self._saved_ns[prediction.source] = _time_ns(prediction, frame)

    def close(self) -> None:
        """Let another run use the folder."""
        fd, self._lock = self._lock, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> UncertainSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _is_due(self, source: str, at_ns: int) -> bool:
        last = self._saved_ns.pop(source, None)
        if last is None:
            # Each image of a folder is a source: those seen longest ago are forgotten.
            if len(self._saved_ns) >= _SOURCES:
                del self._saved_ns[next(iter(self._saved_ns))]
            return True
        self._saved_ns[source] = last
        passed_ns = at_ns - last
        return passed_ns < 0 or passed_ns >= self._every_ns

    def _find_saved(self) -> None:
        """Find what an earlier run saved, oldest first, and remove what it left incomplete."""
        sweep(self._folder)
        names = {path.name for path in self._folder.iterdir()}
        for name in names:
            alone = name.endswith(".json") and _NAME.fullmatch(f"{name[:-5]}.jpg") and f"{name[:-5]}.jpg" not in names
            if alone:
                (self._folder / name).unlink(missing_ok=True)
        stems = [name[:-4] for name in names if _NAME.fullmatch(name) and f"{name[:-4]}.json" in names]
        for stem in sorted(stems, key=lambda stem: int(stem.split("_")[0])):
            found = [(self._folder / f"{stem}{suffix}").stat() for suffix in (".jpg", ".json")]
            self._saved[stem] = _Saved(sum(entry.st_size for entry in found), found[0].st_mtime)
            self._total += self._saved[stem].size

    def _make_room(self, size: int) -> None:
        """Remove the oldest until the limit holds; those that the user has moved away are only forgotten."""
        while self._saved and self._total + size > self._max_bytes:
            self._remove(next(iter(self._saved)))

    def _sweep(self) -> None:
        """Remove what is too old; once a minute."""
        if self._max_age_s is None or time.monotonic() - self._swept_s < _SWEEP_S:
            return
        self._swept_s = time.monotonic()
        before_s = time.time() - self._max_age_s
        for stem in [stem for stem, saved in self._saved.items() if saved.at_s < before_s]:
            self._remove(stem)

    def _remove(self, stem: str) -> None:
        for suffix in (".jpg", ".json"):
            (self._folder / f"{stem}{suffix}").unlink(missing_ok=True)
        self._total -= self._saved.pop(stem).size


def _unusable(folder: Path, error: OSError) -> ConfigError:
    hint = "name a folder that you may write to: --record-uncertain DIR"
    return ConfigError(f"cannot use {folder}: {error.strerror}", hint=hint)


def _time_ns(prediction: Prediction, frame: Frame) -> int:
    """When the frame was: a recording is read faster or slower than it was filmed, so its own time counts."""
    return prediction.captured_ns if frame.position_ns is None else frame.position_ns


def _line(prediction: Prediction, file: str, probability: float) -> bytes:
    fields = prediction_fields(prediction)
    origin = {key: fields[key] for key in ("source", "frame", "wall_ns", "time")}
    return (encode_json({"file": file, **origin, "probability": probability, "top": fields["top"][:3]}) + "\n").encode()


def _stamp(wall_ns: int) -> str:
    """The time of capture as a part of a name, ``_20261103T141502.123Z``; empty if it is not known."""
    moment = utc(wall_ns)
    return f"_{moment.replace('-', '').replace(':', '')}" if moment else ""


def _jpeg(frame: Frame) -> bytes:
    # Encoded in memory: writing to a file, Pillow bypasses Python and does not notice a write that a full disk cut short.
    content = BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.image[..., ::-1])).save(content, "JPEG", quality=_QUALITY, subsampling=0)
    return content.getvalue()
