"""Every error that edge-resnet raises on purpose. Knows nothing of who raises or prints them.

EdgeResnetError
 ├─ ConfigError             what the user asked for makes no sense                        exit 2
 ├─ MissingDependencyError  an optional package is not installed                          exit 1
 ├─ WeightsError            a weights file cannot be had, read, or does not fit           exit 2
 ├─ ExportError             the ONNX graph does not compute what the torch model does     exit 1
 ├─ DataError               images or labels cannot be used                               exit 2
 ├─ CalibrationError        the ranges cannot be had from these images or this table      exit 2
 ├─ BuildError              an artifact or an engine could not be made or written         exit 2
 ├─ ArtifactError           the folder is not a whole, unchanged artifact                 exit 2
 │   └─ IncompatibleEngineError   no engine in it fits this machine                       exit 2
 ├─ BudgetError             a gate failed: the accuracy budget cannot be met              exit 3
 ├─ BackendError            inference failed on the device                                exit 1
 └─ SourceError             frames cannot be had from a camera, a video or a folder       exit 2
"""

from __future__ import annotations

import copy
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
]


#: The exit code of a command that Ctrl-C or SIGTERM ended: 128 + SIGINT, as shells and supervisors expect.
INTERRUPTED = 130


class EdgeResnetError(Exception):
    """Base of all: one line that says what is wrong and, where known, one that says what to do.

    ``exit_code`` is what the command line ends with: 1 the machine or the device failed, 2 the user's input,
    3 a gate failed.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def with_hint(self, more: str) -> Self:
        """The same error with one more thing to do after its own hint."""
        composed = copy.copy(self)
        composed.hint = f"{self.hint}; {more}" if self.hint else more
        return composed


class ConfigError(EdgeResnetError, ValueError):
    """A value or a combination of options makes no sense."""

    exit_code = 2


class MissingDependencyError(EdgeResnetError, ImportError):
    """An optional package is needed here and not installed; the hint is the command that installs it."""


class WeightsError(EdgeResnetError):
    """Weights cannot be downloaded or read, or do not fit the network."""

    exit_code = 2


class ExportError(EdgeResnetError):
    """The exported ONNX graph does not compute what the torch model computes."""


class DataError(EdgeResnetError):
    """A set of images or labels cannot be used."""

    exit_code = 2


class CalibrationError(EdgeResnetError):
    """Ranges cannot be measured, or a calibration table does not belong to the graph."""

    exit_code = 2


class BuildError(EdgeResnetError):
    """An artifact or an engine could not be made or written."""

    exit_code = 2


class ArtifactError(EdgeResnetError):
    """A folder is not a whole and unchanged artifact of a known schema."""

    exit_code = 2


class IncompatibleEngineError(ArtifactError):
    """The artifact is sound, but holds no engine that this machine can run."""


class BudgetError(EdgeResnetError):
    """A gate failed: the accuracy budget cannot be met."""

    exit_code = 3


class BackendError(EdgeResnetError):
    """Inference failed on the device."""


class SourceError(EdgeResnetError):
    """A camera, a video or a folder of images gives no frames."""

    exit_code = 2
