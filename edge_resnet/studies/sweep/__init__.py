"""Measures networks, precisions, backends and batch sizes for a report, one cell after the other, and resumes where it stopped.

The result is a Report; it does not know how that is drawn. Loads torch and onnx only if a network has to be built.
"""

from edge_resnet.studies.sweep.plan import SweepRequest
from edge_resnet.studies.sweep.run import CellOutcome, SweepObserver, sweep

__all__ = ["CellOutcome", "SweepObserver", "SweepRequest", "sweep"]
