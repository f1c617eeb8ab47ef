"""Quantization-aware training: a network that learns with INT8's rounding in it, for cases that PTQ does not solve.

Does not know about the command line.
"""

from edge_resnet.quantization.qat.evaluate import QatAccuracy
from edge_resnet.quantization.qat.network import FakeQuantized

__all__ = ["FakeQuantized", "QatAccuracy"]
