"""A line of JSON per frame, to a file or a stream. Knows nothing of what reads it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TextIO

from edge_resnet.errors import ConfigError
from edge_resnet.frame import Frame
from edge_resnet.spec import Prediction

__all__ = ["JsonlSink"]


class JsonlSink:
    """Keys of a line: source, frame, captured_ns, age_ms, top [{class_index, label, probability}], stages_ms {stage: ms}.

    Each line is flushed when it is written, so that a reader, or a crash, finds whole lines only. Lines are ASCII, other letters
    escaped: so any terminal takes them, and the name of a file that is no text. A stream given by the caller stays open; a file
    is replaced.
    """

    name = "jsonl"

    def __init__(self, target: Path | TextIO) -> None:
        self._name = str(target) if isinstance(target, Path) else "the output"
        self._owned = isinstance(target, Path)
        self._failed = False
        try:
            self._stream = target.open("w", encoding="utf-8") if isinstance(target, Path) else target
        except OSError as error:
            raise ConfigError(f"cannot write {target}: {error.strerror}", hint="choose another file with --jsonl") from error

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Write one line. Raises ConfigError where the disk does not take it, BrokenPipeError where the reader has gone."""
        try:
            self._stream.write(json.dumps(asdict(prediction)) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self._failed = True
            raise
        except OSError as error:
            self._failed = True
            raise self._refused(error) from error

    def close(self) -> None:
        """Close the file; leave a stream open. Raises ConfigError where the disk does not take the rest, unless write said so."""
        if not self._owned:
            return
        try:
            self._stream.close()
        except OSError as error:
            if not self._failed:
                raise self._refused(error) from error

    def __enter__(self) -> JsonlSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _refused(self, error: OSError) -> ConfigError:
        return ConfigError(f"cannot write {self._name}: {error.strerror}", hint="free some space, or choose another file")
