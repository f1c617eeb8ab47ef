"""The experiments of He et al. 2015 (arXiv:1512.03385), run at a chosen scale and set beside the paper's numbers.

Knows nothing of artifacts and of the command line.
"""

from edge_resnet.studies.paper.experiments import EXPERIMENTS, TRAINING, run_experiment
from edge_resnet.studies.paper.request import ExperimentRequest
from edge_resnet.studies.paper.result import ExperimentResult

__all__ = ["EXPERIMENTS", "TRAINING", "ExperimentRequest", "ExperimentResult", "run_experiment"]
