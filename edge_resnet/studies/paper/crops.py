"""Standard 10-crop testing of ImageNet's networks beside the single crop (section 3.4). Knows the crops and no counting."""

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
from edge_resnet.studies.paper.result import ExperimentResult, Scaled
from edge_resnet.studies.paper.tally import Scheme
from edge_resnet.studies.paper.testing import Way, errors_by_way

__all__ = ["CENTRE", "at_scale", "multiscale", "ten_crops", "tencrop"]


#: The centre crop's place among ``ten_crops``.
CENTRE = 4


def ten_crops(square: ImageArray, crop: int) -> ImageArray:
    """The corners and the centre of a square image, then their mirror images: (10, crop, crop, 3) uint8.

    Krizhevsky et al. 2012, which the paper follows: the image is the centred square of the resized one, not all of it.
    """
    check_image(square)
    far = square.shape[0] - crop
    middle = round(far / 2)
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    straight = np.stack([square[top : top + crop, left : left + crop] for top, left in corners])
    return np.concatenate([straight, straight[:, :, ::-1]])


def at_scale(image: ImageArray, short: int) -> ImageArray:
    """Resize all of an image to a short side of ``short`` pixels, antialiased; the long one is rounded down (torchvision)."""
    check_image(image)
    height, width = image.shape[:2]
    if min(height, width) == short:
        return image
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


_ONE, _TEN = "one crop", "ten crops"


def tencrop(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Test the networks on one crop and on ten, the softmax of the ten averaged; the single crop is the centre one of the ten."""
    resize, crop = request.preprocess.resize, request.preprocess.crop
    square = Preprocess(resize, resize)

    def views(image: ImageArray) -> tuple[ImageArray, ...]:
        return (ten_crops(preprocess(image, square), crop),)

    def one(answers: Probabilities) -> Probabilities:
        return np.asarray(answers[CENTRE])

    def ten(answers: Probabilities) -> Probabilities:
        return np.asarray(answers.mean(axis=0), np.float32)

    scaled = () if crop == 224 else (Scaled("crop, pixels", "224 from 256", f"{crop} from {resize}"),)
    return errors_by_way(request, Way("Ten crops beside one", views, {_ONE: one, _TEN: ten}, _paper, scaled), progress)


def _paper(network: str, scheme: str) -> str | None:
    found = (TEN_CROP_ERROR if scheme == _TEN else ONE_CROP_ERROR).get(network)
    if found is None:
        return None
    return f"{found.text}{' (README of the authors)' if scheme == _ONE else ''}"


#: The stem and the stages halve an image five times.
_SMALLEST = 32


def multiscale(request: ExperimentRequest, progress: Progress | None = None) -> ExperimentResult:
    """Test the networks on the centre crop, on the whole image at each scale, and on the mean of the scales' softmax.

    With ``flips`` a scale's answer is the mean of the image's and its mirror image's, as in the works that the paper follows.
    Raises ConfigError for scales that no network can see.
    """
    scales = request.scales or SCALES
    if min(scales) < _SMALLEST or max(scales) > 4096 or len(set(scales)) < len(scales):
        raise ConfigError(
            f"scales must differ and lie in {_SMALLEST}..4096 pixels, not {', '.join(map(str, scales))}",
            hint=f"--scales {','.join(map(str, SCALES))} are the paper's",
        )
    each = 2 if request.flips else 1

    def views(image: ImageArray) -> tuple[ImageArray, ...]:
        groups = [preprocess(image, request.preprocess)[None]]
        for short in scales:
            whole = at_scale(image, short)
            groups.append(np.stack([whole, whole[:, ::-1]][:each]))
        return tuple(groups)

    places = {f"whole, {short}": slice(1 + each * place, 1 + each * (place + 1)) for place, short in enumerate(scales)}
    schemes = {"one crop": _mean(slice(0, 1)), **{name: _mean(part) for name, part in places.items()}}
    schemes[f"{len(scales)} scales"] = _mean(slice(1, None))
    return errors_by_way(
        request, Way("Several scales beside one crop", views, schemes, _paper_scaled(scales), _scaled(request, scales)), progress
    )


def _mean(part: slice) -> Scheme:
    def join(answers: Probabilities) -> Probabilities:
        mean: Probabilities = answers[part].mean(axis=0)
        return mean

    return join


def _paper_scaled(scales: tuple[int, ...]) -> Callable[[str, str], str | None]:
    """The paper's figure stands for its own scales only."""

    def figure(network: str, scheme: str) -> str | None:
        found = MULTISCALE_ERROR.get(network)
        return found.text if found is not None and scheme == f"{len(SCALES)} scales" and scales == SCALES else None

    return figure


def _scaled(request: ExperimentRequest, scales: tuple[int, ...]) -> tuple[Scaled, ...]:
    found = [Scaled("mirror images", "not said; the works it follows average them", "averaged" if request.flips else "left out")]
    if scales != SCALES:
        found.insert(0, Scaled("short sides, pixels", ", ".join(map(str, SCALES)), ", ".join(map(str, scales))))
    return tuple(found)
