"""A line of JSON per frame, to a file or a stream. Knows nothing of what reads it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TextIO

from edge_resnet.errors import ConfigError
from edge_resnet.spec import Prediction

__all__ = ["JsonlSink"]


class JsonlSink:
    """Keys of a line: source, frame, captured_ns, age_ms, top [{class_index, label, probability}], stages_ms {stage: ms}.

    Each line is flushed when it is written, so that a reader, or a crash, finds whole lines only. A stream given by the caller
    stays open; a file is replaced.
    """

    def __init__(self, target: Path | TextIO) -> None:
        self._name = str(target) if isinstance(target, Path) else "the output"
        self._owned = isinstance(target, Path)
        try:
            self._stream = target.open("w", encoding="utf-8") if isinstance(target, Path) else target
        except OSError as error:
            raise ConfigError(f"cannot write {target}: {error.strerror}", hint="choose another file with --jsonl") from error

    def write(self, prediction: Prediction) -> None:
        """Write one line. Raises ConfigError where the disk does not take it, BrokenPipeError where the reader has gone."""
        try:
            self._stream.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ConfigError(
                f"cannot write {self._name}: {error.strerror}", hint="free some space, or choose another file"
            ) from error

    def close(self) -> None:
        """Close the file; leave a stream open."""
        if self._owned:
            try:
                self._stream.close()
            except OSError:
                # what could not be flushed was reported by write
                self._owned = False

    def __enter__(self) -> JsonlSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()
