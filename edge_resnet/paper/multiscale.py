"""Fully convolutional testing at several scales (section 3.4): whole pictures, scores averaged. Knows no counting.

The classifier is linear, so that it applied at every place and averaged equals it applied to the average: the network as it is,
with its global pooling, is its own fully convolutional form.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Progress
from edge_resnet.images.preprocess import Picture, preprocess
from edge_resnet.paper.figures import MULTISCALE_ERROR, SCALES
from edge_resnet.paper.finding import Finding, Scaled
from edge_resnet.paper.networks import Probabilities
from edge_resnet.paper.request import Request
from edge_resnet.paper.tally import Scheme
from edge_resnet.paper.testing import Way, errors_by_way
from edge_resnet.paper.views import at_scale

__all__ = ["multiscale"]

#: The stem and the stages halve a picture five times.
_SMALLEST = 32


def multiscale(request: Request, progress: Progress | None = None) -> Finding:
    """Test the networks on the centre crop, on the whole picture at each scale, and on the mean of the scales' softmax.

    With ``flips`` a scale's answer is the mean of the picture's and its mirror image's, as in the works that the paper follows.
    Raises ConfigError for scales that no network can see.
    """
    scales = request.scales or SCALES
    if min(scales) < _SMALLEST or max(scales) > 4096 or len(set(scales)) < len(scales):
        raise ConfigError(
            f"scales must differ and lie in {_SMALLEST}..4096 pixels, not {', '.join(map(str, scales))}",
            hint=f"--scales {','.join(map(str, SCALES))} are the paper's",
        )
    each = 2 if request.flips else 1

    def views(picture: Picture) -> tuple[Picture, ...]:
        groups = [preprocess(picture, request.preprocess)[None]]
        for short in scales:
            whole = at_scale(picture, short)
            groups.append(np.stack([whole, whole[:, ::-1]][:each]))
        return tuple(groups)

    places = {f"whole, {short}": slice(1 + each * place, 1 + each * (place + 1)) for place, short in enumerate(scales)}
    schemes = {"one crop": _mean(slice(0, 1)), **{name: _mean(part) for name, part in places.items()}}
    schemes[f"{len(scales)} scales"] = _mean(slice(1, None))
    return errors_by_way(
        request, Way("Several scales beside one crop", views, schemes, _paper(scales), _scaled(request, scales)), progress
    )


def _mean(part: slice) -> Scheme:
    def join(answers: Probabilities) -> Probabilities:
        mean: Probabilities = answers[part].mean(axis=0)
        return mean

    return join


def _paper(scales: tuple[int, ...]) -> Callable[[str, str], str | None]:
    """The paper's figure stands for its own scales only."""

    def figure(network: str, scheme: str) -> str | None:
        found = MULTISCALE_ERROR.get(network)
        return found.text if found is not None and scheme == f"{len(SCALES)} scales" and scales == SCALES else None

    return figure


def _scaled(request: Request, scales: tuple[int, ...]) -> tuple[Scaled, ...]:
    found = [Scaled("mirror images", "not said; the works it follows average them", "averaged" if request.flips else "left out")]
    if scales != SCALES:
        found.insert(0, Scaled("short sides, pixels", ", ".join(map(str, SCALES)), ", ".join(map(str, scales))))
    return tuple(found)
