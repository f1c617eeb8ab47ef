"""The training room: SGD as in He et al. 2015, and a faster schedule. Knows nothing of artifacts and of the command line."""

from edge_resnet.train.accuracy import Score, score
from edge_resnet.train.fit import fit
from edge_resnet.train.options import EpochRecord, TrainData, TrainOptions, TrainResult, Watcher

__all__ = ["EpochRecord", "Score", "TrainData", "TrainOptions", "TrainResult", "Watcher", "fit", "score"]
