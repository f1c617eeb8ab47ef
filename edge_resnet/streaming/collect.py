"""A calibration set from a camera, a video or images: frames that differ and show something, saved as images.

Does not know about networks, ranges or kinds of cameras.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from io import BytesIO
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.core.errors import ConfigError, DataError, SourceError
from edge_resnet.core.records import Progress
from edge_resnet.core.staging import replace_files, sweep
from edge_resnet.images.preprocess import ImageArray, decode_image
from edge_resnet.streaming.records import Frame
from edge_resnet.streaming.sources import FrameSource

__all__ = ["SnapshotOptions", "SnapshotResult", "collect_snapshots"]

_log = logging.getLogger(__name__)

_Thumbnail: TypeAlias = npt.NDArray[np.float32]
_Fault: TypeAlias = Literal["dark", "bright", "flat", "similar"]

#: A thumbnail's side: each of its pixels averages some hundred of a camera's, so that noise does not count as a change.
_SIDE = 32
#: JPEG without chroma subsampling changes a network's ranges by a tenth of what another draw of frames does, and takes a third
#: of the space and a twentieth of the time of PNG (calibration/README.md has the figures).
_QUALITY = 95
#: A camera adjusts its exposure in the first second.
_SETTLE_S = 1.0
#: Grey levels, 0 to 255: limits of a dark frame's 99th percentile, a bright one's 1st, and a flat one's standard deviation.
_BLACK, _WHITE, _FLAT = 20, 235, 1.5
#: Frames read per wanted image: a source that never ends must not be read forever.
_MAX_READ = 200
#: Frames skipped in a row after which a warning is logged.
_STILL = 30
_NAME = re.compile(r"(\d{6,})_\d{8}T\d{6}\.\d{3}Z\.jpg")


@dataclass(frozen=True)
class SnapshotOptions:
    """``count``: images the folder is filled up to. ``every_s``: seconds between two frames taken from a live source.

    ``min_change``: a frame is kept if it differs from every image there by more than this, in grey levels (0 to 255) averaged
    over thumbnails of 32x32; 0 skips exact repetitions only. ``seed``: decides which frames of a file are drawn.
    """

    count: int = 256
    every_s: float = 1.0
    min_change: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"a calibration set has at least one image, not {self.count}", hint="128 to 512 are enough")
        if not (isfinite(self.every_s) and self.every_s >= 0):
            raise ConfigError(f"images cannot be {self.every_s} seconds apart", hint="1 is a good start, 0 takes every frame")
        if not 0 <= self.min_change <= 255:
            raise ConfigError(f"the minimum change lies in 0..255 grey levels, not {self.min_change}", hint="2 is a good start")
        if self.seed < 0:
            raise ConfigError(f"a seed is 0 or more, not {self.seed}", hint="the same seed draws the same frames")


@dataclass(frozen=True)
class SnapshotResult:
    """Counts of one collection.

    ``saved``: images added to the folder. ``total``: images in it now. ``skipped_…``: frames that were not kept because they are
    too similar to an image there, dark, overexposed or one flat colour. ``interrupted``: ended by Ctrl-C.
    """

    saved: int
    total: int
    skipped_similar: int
    skipped_dark: int
    skipped_bright: int
    skipped_flat: int
    seconds: float
    interrupted: bool


def collect_snapshots(
    source: FrameSource, folder: Path, options: SnapshotOptions, *, progress: Progress | None = None
) -> SnapshotResult:
    """Fill ``folder`` up to ``options.count`` JPEG files of full size, named by a running number and the time of capture (UTC).

    A live source is read until there are enough. Of a file, which ends, all frames are read (at most 200 per wanted image) and a
    seeded random sample is kept, so that the images come from all of it. Images of an earlier run in the folder count. Each
    image is written whole or not at all; Ctrl-C ends the collection and keeps them.

    Raises DataError if the folder cannot be used or written, and SourceError, which says what is kept, if the source fails.
    """
    started = time.monotonic()
    images = _SavedImages(folder, options.min_change)
    sampler = _Sampler(images, options, live=source.live)
    before, interrupted = len(images), False
    try:
        _report(progress, images, options)
        for frame in _paced(source, options) if len(images) < options.count else ():
            sampler.offer(frame)
            _report(progress, images, options)
            if source.live and len(images) >= options.count:
                break
    except KeyboardInterrupt:
        interrupted = True
    except SourceError as error:
        raise SourceError(f"{error.message}; {len(images)} images are in {folder}", hint=error.hint) from error
    skipped = sampler.skipped
    return SnapshotResult(
        saved=len(images) - before,
        total=len(images),
        skipped_similar=skipped["similar"],
        skipped_dark=skipped["dark"],
        skipped_bright=skipped["bright"],
        skipped_flat=skipped["flat"],
        seconds=time.monotonic() - started,
        interrupted=interrupted,
    )


def _report(progress: Progress | None, images: _SavedImages, options: SnapshotOptions) -> None:
    if progress is not None:
        progress("collect", len(images), max(options.count, len(images)))


def _paced(source: FrameSource, options: SnapshotOptions) -> Iterator[Frame]:
    """The frames to consider: at intervals from a live source, one after another from a file."""
    if not source.live:
        yield from islice(source, _MAX_READ * options.count)
        return
    due: float | None = None
    for frame in source:
        if due is None:
            due = frame.captured_ns + _SETTLE_S * 1e9
        if frame.captured_ns >= due:
            due = frame.captured_ns + options.every_s * 1e9
            yield frame


class _Sampler:
    """Decides which frames are saved."""

    def __init__(self, images: _SavedImages, options: SnapshotOptions, *, live: bool) -> None:
        self.skipped: Counter[_Fault] = Counter()
        self._images = images
        self._kept_before = len(images)
        self._places = options.count - len(images)
        self._rng = np.random.default_rng(options.seed)
        self._live = live
        self._fit = 0
        self._still = 0

    def offer(self, frame: Frame) -> None:
        """Save the frame, perhaps in place of an earlier one, or count why it is skipped."""
        image = np.ascontiguousarray(frame.image[..., ::-1])
        thumbnail = _thumbnail(image)
        fault = self._images.fault(thumbnail)
        self._warn_of_stillness(fault)
        if fault is not None:
            self.skipped[fault] += 1
            return
        self._fit += 1
        if self._fit <= self._places:
            self._images.add(image, thumbnail, frame.captured_ns)
            return
        # Vitter's algorithm R: each suitable frame has the same chance, however many there are.
        place = int(self._rng.integers(self._fit))
        if place < self._places:
            self._images.replace(self._kept_before + place, image, thumbnail, frame.captured_ns)

    def _warn_of_stillness(self, fault: _Fault | None) -> None:
        self._still = 0 if fault is None else self._still + 1
        if self._live and self._still and self._still % _STILL == 0:
            hint = "move the camera or the scene" if fault == "similar" else "is the lens covered?"
            _log.warning("the last %d frames were skipped (%s): %s", self._still, fault, hint)


class _SavedImages:
    """The images of one folder, with their thumbnails."""

    def __init__(self, folder: Path, min_change: float) -> None:
        self._folder = folder
        self._min_change = min_change
        self._files: list[Path] = []
        self._thumbnails: list[_Thumbnail] = []
        earlier = _earlier(folder)
        sweep(folder)
        for path in earlier:
            self._add_earlier(path)
        self._next = 1 + max(map(_number, earlier), default=0)

    def __len__(self) -> int:
        return len(self._files)

    def fault(self, thumbnail: _Thumbnail) -> _Fault | None:
        """Why a frame is not worth saving, None if it is."""
        low, high = np.percentile(thumbnail, [1, 99])
        if high < _BLACK:
            return "dark"
        if low > _WHITE:
            return "bright"
        if thumbnail.std() < _FLAT:
            return "flat"
        if self._thumbnails:
            nearest = np.abs(np.stack(self._thumbnails) - thumbnail).mean(axis=(1, 2)).min()
            if nearest <= self._min_change:
                return "similar"
        return None

    def add(self, image: ImageArray, thumbnail: _Thumbnail, captured_ns: int) -> None:
        """Save one more image."""
        self._files.append(self._write(image, captured_ns))
        self._thumbnails.append(thumbnail)

    def replace(self, place: int, image: ImageArray, thumbnail: _Thumbnail, captured_ns: int) -> None:
        """Save an image in place of an earlier one, which is removed."""
        old = self._files[place]
        self._files[place] = self._write(image, captured_ns)
        self._thumbnails[place] = thumbnail
        old.unlink(missing_ok=True)

    def _add_earlier(self, path: Path) -> None:
        try:
            thumbnail = _thumbnail(decode_image(path))
        except DataError as error:
            _log.warning("skipped an image: %s", error)
            return
        self._files.append(path)
        self._thumbnails.append(thumbnail)

    def _write(self, image: ImageArray, captured_ns: int) -> Path:
        path = self._folder / f"{self._next:06d}_{_utc(captured_ns)}.jpg"
        try:
            replace_files({path: partial(Path.write_bytes, data=_jpeg(image))}, swept=True)
        except OSError as error:
            hint = f"free some space or name another folder; the {len(self)} images there are kept, and the next run continues"
            raise DataError(f"cannot write {path}: {error.strerror or error}", hint=hint) from error
        self._next += 1
        return path


def _earlier(folder: Path) -> list[Path]:
    """The images of earlier runs, by number."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        below = sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{folder} cannot be used: {error.strerror}", hint="name a folder that you may write to") from error
    if below:  # a reader would take these for classes and ignore the images beside them
        hint = f"name another folder, or one of these, such as {folder / below[0]}"
        raise DataError(f"{folder} contains folders ({', '.join(below[:3])})", hint=hint)
    return sorted((entry for entry in entries if _NAME.fullmatch(entry.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.name.split("_")[0])


def _thumbnail(image: ImageArray) -> _Thumbnail:
    small = Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BOX).convert("L")
    return np.asarray(small, np.float32)


def _jpeg(image: ImageArray) -> bytes:
    # Encoded in memory: writing to a file, Pillow bypasses Python and does not notice a write that a full disk cut short.
    content = BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=_QUALITY, subsampling=0)
    return content.getvalue()


def _utc(captured_ns: int) -> str:
    """The time of capture, given on the monotonic clock, as a name: 20261103T141502.123Z."""
    ago_s = (time.monotonic_ns() - captured_ns) / 1e9
    stamp = datetime.fromtimestamp(time.time() - ago_s, timezone.utc)
    return f"{stamp:%Y%m%dT%H%M%S}.{stamp.microsecond // 1000:03d}Z"
