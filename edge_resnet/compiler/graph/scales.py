"""The scales of weights, per channel, clipped if that loses less. Does not know about graphs or activations."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_SCALE", "channel_amax", "weight_scales"]

Floats: TypeAlias = npt.NDArray[np.float32]

#: GPUs flush smaller scales to zero, and TensorRT refuses a scale of zero.
MIN_SCALE = float(np.finfo(np.float32).tiny)
#: Ranges that are tried, as shares of the largest weight; the whole range comes first, and is kept if no other loses less.
_SHARES = np.linspace(1.0, 0.5, 51)


def weight_scales(weight: Floats, limit: int = 127) -> Floats:
    """Scale per output channel (axis 0), (O,) float32: ½ to 1 of the largest absolute weight, divided by ``limit``.

    It is the scale with the smallest squared error sum((w - q(w))²) over the channel, never more than without clipping. It is 1
    for a channel of zeros, and for weights that training has decayed so far that the scale would be denormal.
    """
    flat = weight.reshape(weight.shape[0], -1).astype(np.float32, copy=False)
    whole = channel_amax(weight) / limit
    alive = whole >= MIN_SCALE
    best = np.where(alive, whole, 1.0).astype(np.float32)
    smallest = _squared_error(flat, best, limit)
    for share in _SHARES[1:]:
        if not (alive & (((1 - share) * limit * whole.astype(np.float64)) ** 2 < smallest)).any():
            break  # clipping the largest weight alone would lose more, in every channel
        scales = np.where(alive, whole * share, 1.0).astype(np.float32)
        error = _squared_error(flat, scales, limit)
        better = alive & (scales >= MIN_SCALE) & (error < smallest)
        best, smallest = np.where(better, scales, best), np.where(better, error, smallest)
    return best


def channel_amax(weight: Floats) -> Floats:
    """The largest absolute weight per output channel (axis 0), (O,) float32."""
    amax: Floats = np.abs(weight.reshape(weight.shape[0], -1)).max(axis=1)
    return amax


def _squared_error(flat: Floats, scales: Floats, limit: int) -> npt.NDArray[np.float64]:
    """sum((w - q(w))²) per channel, summed in units of the scale, so that weights far from 1 keep their digits."""
    steps = flat / scales[:, np.newaxis]
    lost = steps - np.clip(np.rint(steps), -limit, limit)
    in_steps: npt.NDArray[np.float64] = np.einsum("ok,ok->o", lost, lost, dtype=np.float64)
    return in_steps * scales.astype(np.float64) ** 2
