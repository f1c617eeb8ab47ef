"""The fake backend, beyond the conformance suite: equal to the bit, and the same in every process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.runtime.fake import FakeBackend


@settings(max_examples=20)
@given(count=st.integers(1, 9), size=st.sampled_from([8, 17, 32]), seed=st.integers(0, 9))
def test_a_batch_is_its_images_to_the_bit(count: int, size: int, seed: int) -> None:
    """No order of sums can differ here."""
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    backend = FakeBackend(7, size)
    together = backend.infer(images)
    assert np.array_equal(together, np.concatenate([backend.infer(image[None]) for image in images]))


def test_every_process_gives_the_same_answer() -> None:
    """The projection is seeded: another process gets the same logits."""
    code = (
        "import numpy as np; from edge_resnet.runtime.fake import FakeBackend; "
        "print(FakeBackend(3, 8).infer(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)).tolist())"
    )
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    here = FakeBackend(3, 8).infer(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)).tolist()
    assert outputs == {f"{here}\n"}


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_each_colour_channel_counts(channel: int) -> None:
    """Each channel affects the logits."""
    image = np.zeros((1, 16, 16, 3), np.uint8)
    backend = FakeBackend(5, 16)
    black = backend.infer(image)
    image[..., channel] = 255
    assert not np.array_equal(backend.infer(image), black)
