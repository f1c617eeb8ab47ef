"""What the owner of a camera asks of an accuracy: which classes are confused, and how far the probabilities can be trusted."""

from edge_resnet.measurement.details.page import check_details, evaluate_into, write_details
from edge_resnet.measurement.details.record import Details, DetailsCollector

__all__ = ["Details", "DetailsCollector", "check_details", "evaluate_into", "write_details"]
