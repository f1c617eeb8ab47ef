"""The networks of He et al. 2015: modules, weights, export to ONNX, and training.

Does not know about INT8, artifacts or devices. Requires torch; only ``network.export`` loads onnx.
"""

from edge_resnet.network.pretrained import Checkpoint, shipped_checkpoint
from edge_resnet.network.resnet import ResNet, build_network
from edge_resnet.network.weights import load_weights
from edge_resnet.network.zoo import NetworkFacts, class_names, paper_table

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
