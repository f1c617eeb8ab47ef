"""A moving average of a network: its weights, and its batch norms' statistics. Knows nothing of training."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["Average"]


class Average:
    """``network`` is the average, in eval mode; it begins as a copy of the one that is trained.

    The decay grows as (1 + step) / (10 + step) up to ``decay``: a young average would otherwise remember its random start.
    Statistics are averaged as weights are: those of one step belong to that step's weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards ``network`` after its ``step``-th step, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], share)
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])
