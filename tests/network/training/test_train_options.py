"""Options are validated when they are created, and the error names the invalid one."""

from __future__ import annotations

from typing import Any

import pytest

from edge_resnet.core.errors import ConfigError
from edge_resnet.network.training import TrainOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"rate": 0.0}, "learning rate"),
        ({"rate": float("nan")}, "learning rate"),
        ({"rate": float("inf")}, "learning rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": 0.0}, "Nesterov"),
        ({"weight_decay": -1e-4}, "weight decay"),
        ({"warm_up": 0.0}, "warm-up"),
        ({"label_smoothing": 1.0}, "smoothing"),
        ({"ema": 1.0}, "ema"),
        ({"seed": -1}, "seed"),
        ({"max_steps": 0}, "max_steps"),
        ({"patience": 0}, "patience"),
        ({"test_every": 0}, "test_every"),
        ({"workers": -1}, "workers"),
        ({"schedule": "plateau"}, "one-cycle"),
        ({"augment": "mixup"}, "imagenet"),
        ({"precision": "fp16"}, "bf16"),
        ({"keep": "first"}, "best"),
    ],
)
def test_invalid_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    """The message has the option, or its valid values."""
    with pytest.raises(ConfigError, match=message):
        TrainOptions(**wrong)


def test_edges_are_allowed() -> None:
    """Half an epoch, no momentum, no decay, no workers."""
    options = TrainOptions(epochs=0.5, momentum=0.0, nesterov=False, weight_decay=0.0, workers=0, seed=0, batch=1)
    assert options.epochs == 0.5
