"""Standard 10-crop testing of ImageNet's networks beside the single crop (section 3.4). Knows the crops and no counting."""

from __future__ import annotations

import numpy as np

from edge_resnet.core.records import Preprocess, Progress
from edge_resnet.images.preprocess import Picture, preprocess
from edge_resnet.paper.figures import ONE_CROP_ERROR, TEN_CROP_ERROR
from edge_resnet.paper.finding import Finding, Scaled
from edge_resnet.paper.networks import Probabilities
from edge_resnet.paper.request import Request
from edge_resnet.paper.testing import Way, errors_by_way
from edge_resnet.paper.views import CENTRE, ten_crops

__all__ = ["tencrop"]

_ONE, _TEN = "one crop", "ten crops"


def tencrop(request: Request, progress: Progress | None = None) -> Finding:
    """Test the networks on one crop and on ten, the softmax of the ten averaged; the single crop is the centre one of the ten."""
    resize, crop = request.preprocess.resize, request.preprocess.crop
    square = Preprocess(resize, resize)

    def views(picture: Picture) -> tuple[Picture, ...]:
        return (ten_crops(preprocess(picture, square), crop),)

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
