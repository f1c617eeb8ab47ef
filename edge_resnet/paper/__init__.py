"""The experiments of He et al. 2015 (arXiv:1512.03385), run at a chosen scale and set beside the paper's numbers.

Knows nothing of artifacts and of the command line.
"""

from edge_resnet.paper.experiments import EXPERIMENTS, TRAINING, run_experiment
from edge_resnet.paper.finding import Finding
from edge_resnet.paper.request import Request

__all__ = ["EXPERIMENTS", "TRAINING", "Finding", "Request", "run_experiment"]
