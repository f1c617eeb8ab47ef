"""Measures networks, precisions, backends and batch sizes beside each other, cell by cell, and goes on where it was interrupted.

Knows no page and draws nothing: what it finds is a Report. Loads torch and onnx only where a network is to be built.
"""

from edge_resnet.studies.sweep.plan import SweepRequest
from edge_resnet.studies.sweep.run import Told, sweep

__all__ = ["SweepRequest", "Told", "sweep"]
