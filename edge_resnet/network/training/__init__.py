"""The training room: SGD as in He et al. 2015, and a faster schedule. Knows nothing of artifacts and of the command line."""

from edge_resnet.network.training.fit import fit
from edge_resnet.network.training.options import EpochRecord, TrainData, TrainOptions, TrainResult, Watcher
from edge_resnet.network.training.validation import Score, score

__all__ = ["EpochRecord", "Score", "TrainData", "TrainOptions", "TrainResult", "Watcher", "fit", "score"]
