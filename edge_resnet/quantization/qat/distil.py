"""Distillation: a network learns from another network's answers as well as from labels. Does not know what the networks are.

A training loop that only knows labels needs no change: the gradient of the teacher's part of the loss is added where it passes
through the logits. The loss that the loop reports is that of the labels alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Distilled"]


class Distilled(nn.Module):
    """``student`` with the gradient of (1 - share) * loss + share * KL(teacher ‖ student), both means over the batch.

    ``loss``: the loop's loss of the logits, a mean over the batch. In eval mode the teacher does not run.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, share: float) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher.eval().requires_grad_(requires_grad=False)
        self._share = share

    def forward(self, images: Tensor) -> Tensor:
        """The student's logits."""
        logits: Tensor = self.student(images)
        if not (self.training and torch.is_grad_enabled()):
            return logits
        pulled: Tensor = _Pull.apply(logits, self.teacher(images), self._share)
        return pulled


class _Pull(torch.autograd.Function):
    """Identity; backward adds the teacher's part of the gradient, d KL / d logits = softmax(logits) - softmax(answers)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, answers: Tensor, share: float) -> Tensor:
        ctx.share = share
        ctx.save_for_backward((logits.softmax(1) - answers.softmax(1)) * (share / len(logits)))
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (pull,) = ctx.saved_tensors
        return grad[0] * (1 - ctx.share) + pull, None, None
