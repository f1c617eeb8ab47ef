"""What a user asks of a build's network and images, before anything is opened. Knows no files and no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from torch import nn

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import NORMALISATIONS, Family, Interpolation, Normalisation, Shortcut

__all__ = ["PreprocessChoice", "Request"]

_Channels = tuple[float, float, float]


@dataclass(frozen=True)
class PreprocessChoice:
    """What a user says about preprocessing; None is what the weights say. The fields are those of ``Preprocess``."""

    input_size: int | None = None
    resize: int | None = None
    interpolation: Interpolation | None = None
    mean: _Channels | None = None
    std: _Channels | None = None

    @classmethod
    def normalising(
        cls,
        normalise: Normalisation | None,
        sizes: tuple[int | None, int | None],
        interpolation: Interpolation | None,
        mean: _Channels | None,
        std: _Channels | None,
    ) -> PreprocessChoice:
        """The choice with the mean and std that ``normalise`` names. ``sizes``: of the input and of the resize.

        Raises ConfigError where it names none, and where both are given.
        """
        if normalise is None:
            return cls(*sizes, interpolation, mean, std)
        if normalise not in NORMALISATIONS:
            known = ", ".join(get_args(Normalisation))
            raise ConfigError(
                f"no normalisation is called {normalise!r}", hint=f"choose one of {known}, or give a mean and a std"
            )
        if mean is not None or std is not None:
            raise ConfigError("--normalise stands for a mean and a std", hint="leave it out, or leave mean and std out")
        return cls(*sizes, interpolation, *NORMALISATIONS[normalise])


@dataclass(frozen=True)
class Request:
    """What a user says about a network; None is what the weights say, else the usual.

    ``name``: of a network, in place of ``family`` and ``depth``. ``module``, ``onnx``: a torch module or an ONNX file, in place
    of all but ``images`` and ``classes``. ``weights``: ``default``, ``v1``, ``v2``, ``random``, a file or ``hf://…``. ``labels``:
    how many names there are; 0 for none.
    """

    weights: str = "default"
    name: str | None = None
    module: nn.Module | None = None
    family: Family | None = None
    depth: int | None = None
    shortcut: Shortcut | None = None
    plain: bool = False
    classes: int | None = None
    labels: int = 0
    images: PreprocessChoice = PreprocessChoice()
    onnx: Path | None = None
