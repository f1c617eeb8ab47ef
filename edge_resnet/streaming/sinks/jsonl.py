"""A line of JSON per frame, to a file or a stream. Does not know who reads it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TextIO, get_args

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.linefile import FileInUseError, LineFile, Sync
from edge_resnet.streaming.sinks.serialise import to_json

__all__ = ["JsonlSink"]


class JsonlSink:
    """Writes lines as :func:`edge_resnet.streaming.sinks.serialise.to_json` makes them, each one handed to the system before
    ``write`` returns: a reader finds only whole lines, also after a crash.

    A stream given by the caller stays open. A file is replaced, or continued with ``append``. ``max_bytes``: a larger file is
    renamed to ``FILE.1`` and so on, of which ``keep`` remain. ``sync``: when lines are synced to disk; ``interval``: with the
    first frame that comes at least a second after the last time. All three apply to files.

    Two runs never write to one file: the second one is refused. If the disk is full ``write`` fails and removes what it wrote of
    the line; the next line is tried again.
    """

    name = "jsonl"
    wants_frames = False

    def __init__(
        self,
        target: Path | TextIO,
        *,
        append: bool = False,
        max_bytes: int | None = None,
        keep: int = 5,
        sync: Sync = "never",
    ) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise ConfigError(f"a file of {max_bytes} bytes is too small for a line", hint="some MiB are a good start")
        if keep < 1:
            raise ConfigError(f"at least one older file is kept, not {keep}", hint="5 is a good start")
        if sync not in get_args(Sync):
            raise ConfigError(f"{sync!r} is not a way to sync lines", hint=f"choose {', '.join(get_args(Sync))}")
        self._name = str(target) if isinstance(target, Path) else "the output"
        self._stream = None if isinstance(target, Path) else target
        self._file: LineFile | None = None
        self._failed = False
        if isinstance(target, Path):
            try:
                self._file = LineFile(target, append=append, max_bytes=max_bytes, keep=keep, sync=sync)
            except FileInUseError as error:
                hint = "end that run, or choose another file with --jsonl"
                raise ConfigError(f"another run writes to {target}", hint=hint) from error
            except OSError as error:
                raise ConfigError(f"cannot write {target}: {error.strerror}", hint="choose another file with --jsonl") from error

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Write one line. Raises ConfigError if it cannot be written, BrokenPipeError if the reader of the stream has gone."""
        try:
            if self._file is not None:
                self._file.write(to_json(prediction))
            elif self._stream is not None:
                self._stream.write(to_json(prediction) + "\n")
                self._stream.flush()
        except BrokenPipeError:
            self._failed = True
            raise
        except OSError as error:
            self._failed = True
            raise self._refused(error) from error

    def close(self) -> None:
        """Close the file; leave a stream open. Raises ConfigError if the rest cannot be written, unless ``write`` has failed
        already."""
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            if not self._failed:
                raise self._refused(error) from error

    def __enter__(self) -> JsonlSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _refused(self, error: OSError) -> ConfigError:
        return ConfigError(f"cannot write {self._name}: {error.strerror}", hint="free some space, or choose another file")
