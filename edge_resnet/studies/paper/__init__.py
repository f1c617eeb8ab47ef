"""The experiments of He et al. 2015 (arXiv:1512.03385) at a chosen scale, compared with the paper's numbers.

Does not know about artifacts or the command line.
"""

from edge_resnet.studies.paper.experiments import EXPERIMENTS, TRAINING, run_experiment
from edge_resnet.studies.paper.request import ExperimentRequest
from edge_resnet.studies.paper.result import ExperimentResult

__all__ = ["EXPERIMENTS", "TRAINING", "ExperimentRequest", "ExperimentResult", "run_experiment"]
