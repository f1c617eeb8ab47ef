"""Every error that edge-resnet raises on purpose, and its exit code. Does not know who raises or prints them.

EdgeResnetError
 ├─ ConfigError             an option or a combination is invalid                  exit 2
 ├─ MissingDependencyError  an optional package is not installed                   exit 1
 ├─ WeightsError            weights cannot be downloaded or read, or do not fit    exit 2
 ├─ ExportError             the ONNX graph does not match the torch model          exit 1
 ├─ DataError               images or labels cannot be used                        exit 2
 ├─ CalibrationError        ranges cannot be measured, or the table does not fit   exit 2
 ├─ BuildError              an artifact or an engine could not be built or written exit 2
 ├─ ArtifactError           the folder is no complete, unchanged artifact          exit 2
 │   └─ IncompatibleEngineError   none of its engines fits this machine            exit 2
 ├─ BudgetError             a gate failed: the accuracy budget cannot be met       exit 3
 ├─ BackendError            inference failed on the device                         exit 1
 └─ SourceError             a camera, a video or a folder gives no frames          exit 2
"""

from __future__ import annotations

import copy
import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "INTERRUPTED",
    "ArtifactError",
    "BackendError",
    "BudgetError",
    "BuildError",
    "CalibrationError",
    "ConfigError",
    "DataError",
    "EdgeResnetError",
    "ExportError",
    "IncompatibleEngineError",
    "MissingDependencyError",
    "SourceError",
    "WeightsError",
    "is_out_of_memory",
]


#: The exit code of a command that Ctrl-C or SIGTERM ended: 128 + SIGINT, as shells and supervisors expect.
INTERRUPTED = 130


class EdgeResnetError(Exception):
    """Base class. ``message``: one sentence on what is wrong. ``hint``: what to do about it, if known.

    ``exit_code`` of the command line: 1 the machine or the device failed, 2 wrong input, 3 a gate failed.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def with_hint(self, more: str) -> Self:
        """The same error with one more hint after its own."""
        composed = copy.copy(self)
        composed.hint = f"{self.hint}; {more}" if self.hint else more
        return composed


class ConfigError(EdgeResnetError, ValueError):
    """A value or a combination of options is invalid."""

    exit_code = 2


class MissingDependencyError(EdgeResnetError, ImportError):
    """An optional package is required but not installed; the hint is the command that installs it."""


class WeightsError(EdgeResnetError):
    """Weights cannot be downloaded or read, or do not fit the network.

    ``classes`` is the width of the head in the file, if the file fits a known network; None otherwise.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", classes: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.classes = classes


class ExportError(EdgeResnetError):
    """The exported ONNX graph does not compute what the torch model computes."""


class DataError(EdgeResnetError):
    """A set of images or labels cannot be used."""

    exit_code = 2


class CalibrationError(EdgeResnetError):
    """Ranges cannot be measured, or a calibration table does not belong to the graph."""

    exit_code = 2


class BuildError(EdgeResnetError):
    """An artifact or an engine could not be built or written."""

    exit_code = 2


class ArtifactError(EdgeResnetError):
    """A folder is not a complete, unchanged artifact of a known schema."""

    exit_code = 2


class IncompatibleEngineError(ArtifactError):
    """The artifact is valid, but contains no engine that this machine can run."""


class BudgetError(EdgeResnetError):
    """A gate failed: the accuracy budget cannot be met."""

    exit_code = 3


class BackendError(EdgeResnetError):
    """Inference failed on the device."""


class SourceError(EdgeResnetError):
    """A camera, a video or a folder of images gives no frames."""

    exit_code = 2


#: How libraries say that memory ran out: C++, torch, OpenCV, ONNX Runtime, Python's threads, and the loader of shared objects.
_OUT_OF_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "an't allocate memory",
    "annot allocate memory",
    "nsufficient memory",
    "ot enough memory",
    "can't start new thread",
    "failed to map segment from shared object",
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: by the type of the error or of one that it arose from, or by the text of the library behind it."""
    while error is not None:
        text = str(error)
        # The loader also says this of folders from which nothing may be executed.
        if "Operation not permitted" not in text and any(sign in text for sign in _OUT_OF_MEMORY):
            return True
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        error = error.__cause__ or error.__context__
    return False
