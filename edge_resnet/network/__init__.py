"""The networks of He et al. 2015 and their successors: modules, weights, export to ONNX, and training.

Does not know about INT8, artifacts or devices. Requires torch; only ``network.export`` loads onnx, and only
``network.hub`` huggingface_hub.
"""

from edge_resnet.network.pretrained import Checkpoint, shipped_checkpoint
from edge_resnet.network.resnet import ResNet, build_network
from edge_resnet.network.weights import load_weights
from edge_resnet.network.zoo import NetworkFacts, class_names, known_networks

__all__ = [
    "Checkpoint",
    "NetworkFacts",
    "ResNet",
    "build_network",
    "class_names",
    "known_networks",
    "load_weights",
    "shipped_checkpoint",
]
