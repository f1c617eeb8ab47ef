"""The views of one picture that testing averages over: ten crops, and the whole picture at several sizes. Knows no network."""

from __future__ import annotations

import numpy as np
from PIL import Image

from edge_resnet.images.preprocess import Picture, check_picture

__all__ = ["CENTRE", "at_scale", "ten_crops"]

#: The centre crop's place among ``ten_crops``.
CENTRE = 4


def ten_crops(square: Picture, crop: int) -> Picture:
    """The corners and the centre of a square picture, then their mirror images: (10, crop, crop, 3) uint8.

    Krizhevsky et al. 2012, which the paper follows: the picture is the centred square of the resized one, not all of it.
    """
    check_picture(square)
    far = square.shape[0] - crop
    middle = round(far / 2)
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    straight = np.stack([square[top : top + crop, left : left + crop] for top, left in corners])
    return np.concatenate([straight, straight[:, :, ::-1]])


def at_scale(picture: Picture, short: int) -> Picture:
    """Resize all of a picture to a short side of ``short`` pixels, antialiased; the long one is rounded down (torchvision)."""
    check_picture(picture)
    height, width = picture.shape[:2]
    if min(height, width) == short:
        return picture
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
