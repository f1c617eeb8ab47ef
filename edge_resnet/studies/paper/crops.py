"""Testing ImageNet networks on ten crops and on several scales (section 3.4), compared with one crop.

Makes the views and averages their probabilities. Does not know how errors are counted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.images.preprocess import ImageArray, check_image, preprocess
from edge_resnet.studies.paper.figures import MULTISCALE_ERROR, ONE_CROP_ERROR, SCALES, TEN_CROP_ERROR
from edge_resnet.studies.paper.networks import Probabilities
from edge_resnet.studies.paper.request import ExperimentRequest
from edge_resnet.studies.paper.result import ExperimentResult, SetupDifference
from edge_resnet.studies.paper.tally import Scheme
from edge_resnet.studies.paper.testing import ViewProtocol, run_protocol

__all__ = ["CENTRE", "at_scale", "multiscale", "ten_crops", "tencrop"]

#: The index of the centre crop in ``ten_crops``.
CENTRE = 4

_ONE_CROP, _TEN_CROPS = "one crop", "ten crops"
#: Short sides that multi-scale testing accepts: the stem and the stages halve an image five times.
_MIN_SCALE, _MAX_SCALE = 32, 4096


def tencrop(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Test the networks on one crop and on ten with averaged softmax. The single crop is the centre one of the ten."""
    resize, crop = request.preprocess.resize, request.preprocess.crop
    square = Preprocess(resize, resize)

    def views(image: ImageArray) -> tuple[ImageArray, ...]:
        return (ten_crops(preprocess(image, square), crop),)

    def centre(by_view: Probabilities) -> Probabilities:
        return np.asarray(by_view[CENTRE])

    def mean(by_view: Probabilities) -> Probabilities:
        return np.asarray(by_view.mean(axis=0), np.float32)

    differences = () if crop == 224 else (SetupDifference("crop, pixels", "224 from 256", f"{crop} from {resize}"),)
    schemes = {_ONE_CROP: centre, _TEN_CROPS: mean}
    return run_protocol(request, ViewProtocol("Ten crops against one", views, schemes, _crop_error, differences), progress)


def multiscale(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Test the networks on the centre crop, on the whole image at each scale, and on the averaged softmax of all scales.

    With ``flips`` the image and its mirror image are averaged at each scale, as in the works that the paper follows. Raises
    ConfigError for scales that the networks cannot process.
    """
    scales = request.scales or SCALES
    if min(scales) < _MIN_SCALE or max(scales) > _MAX_SCALE or len(set(scales)) < len(scales):
        raise ConfigError(
            f"scales must differ and lie in {_MIN_SCALE}..{_MAX_SCALE} pixels, not {', '.join(map(str, scales))}",
            hint=f"the paper's are --scales {','.join(map(str, SCALES))}",
        )
    views_each = 2 if request.flips else 1

    def views(image: ImageArray) -> tuple[ImageArray, ...]:
        groups = [preprocess(image, request.preprocess)[None]]
        for short in scales:
            whole = at_scale(image, short)
            groups.append(np.stack([whole, whole[:, ::-1]][:views_each]))
        return tuple(groups)

    schemes = {_ONE_CROP: _mean_of(slice(0, 1))}
    for place, short in enumerate(scales):
        schemes[f"whole, {short}"] = _mean_of(slice(1 + views_each * place, 1 + views_each * (place + 1)))
    schemes[f"{len(scales)} scales"] = _mean_of(slice(1, None))
    differences = _scale_differences(request, scales)
    protocol = ViewProtocol("Several scales against one crop", views, schemes, _scales_error(scales), differences)
    return run_protocol(request, protocol, progress)


def ten_crops(square: ImageArray, crop: int) -> ImageArray:
    """The corners and the centre of a square image, then their mirror images: (10, crop, crop, 3) uint8.

    As in Krizhevsky et al. 2012, which the paper follows: ``square`` is the centre of the resized image, not all of it.
    """
    check_image(square)
    far = square.shape[0] - crop
    middle = round(far / 2)
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    straight = np.stack([square[top : top + crop, left : left + crop] for top, left in corners])
    return np.concatenate([straight, straight[:, :, ::-1]])


def at_scale(image: ImageArray, short: int) -> ImageArray:
    """Resize a whole image to a short side of ``short`` pixels, antialiased. The long side is rounded down, as in torchvision."""
    check_image(image)
    height, width = image.shape[:2]
    if min(height, width) == short:
        return image
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _crop_error(network: str, scheme: str) -> str | None:
    found = (TEN_CROP_ERROR if scheme == _TEN_CROPS else ONE_CROP_ERROR).get(network)
    if found is None:
        return None
    return f"{found.text}{' (README of the authors)' if scheme == _ONE_CROP else ''}"


def _mean_of(part: slice) -> Scheme:
    def mean(by_view: Probabilities) -> Probabilities:
        averaged: Probabilities = by_view[part].mean(axis=0)
        return averaged

    return mean


def _scales_error(scales: tuple[int, ...]) -> Callable[[str, str], str | None]:
    """The paper's errors, which are for its own scales only."""

    def paper_error(network: str, scheme: str) -> str | None:
        found = MULTISCALE_ERROR.get(network)
        return found.text if found is not None and scheme == f"{len(SCALES)} scales" and scales == SCALES else None

    return paper_error


def _scale_differences(request: ExperimentRequest, scales: tuple[int, ...]) -> tuple[SetupDifference, ...]:
    mirrored = "averaged" if request.flips else "left out"
    found = [SetupDifference("mirror images", "not stated; the works it follows average them", mirrored)]
    if scales != SCALES:
        found.insert(0, SetupDifference("short sides, pixels", ", ".join(map(str, SCALES)), ", ".join(map(str, scales))))
    return tuple(found)
