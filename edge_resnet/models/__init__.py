"""The networks of He et al. 2015 and their weights: what other rooms need of them. Knows nothing of ONNX."""

from edge_resnet.models.resnet import ResNet, build_network
from edge_resnet.models.shipped import Checkpoint, shipped_checkpoint
from edge_resnet.models.weights import load_weights
from edge_resnet.models.zoo import NetworkFacts, class_names, paper_table

__all__ = [
    "Checkpoint",
    "NetworkFacts",
    "ResNet",
    "build_network",
    "class_names",
    "load_weights",
    "paper_table",
    "shipped_checkpoint",
]
