"""Training with SGD as in He et al. 2015, or with a faster schedule. Does not know about artifacts or the command line."""

from edge_resnet.network.training.fit import fit
from edge_resnet.network.training.options import EpochRecord, TrainData, TrainObserver, TrainOptions, TrainResult
from edge_resnet.network.training.validation import Score, score

__all__ = ["EpochRecord", "Score", "TrainData", "TrainObserver", "TrainOptions", "TrainResult", "fit", "score"]
