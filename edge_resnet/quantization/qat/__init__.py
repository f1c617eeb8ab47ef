"""Quantization-aware training: a network that learns with INT8's rounding in it, where post-training methods do not suffice.

Knows nothing of the command line.
"""

from edge_resnet.quantization.qat.evaluate import QatAccuracy
from edge_resnet.quantization.qat.network import FakeQuantized

__all__ = ["FakeQuantized", "QatAccuracy"]
