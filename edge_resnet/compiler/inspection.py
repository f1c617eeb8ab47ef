"""What of an INT8 artifact is quantized, with its ranges and scales, read from the graph that TensorRT takes. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edge_resnet.core.errors import ConfigError

if TYPE_CHECKING:
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.compiler.graph.placement import Placement

__all__ = ["Quantization", "quantization_of"]


@dataclass(frozen=True)
class Quantization:
    """A placement with the numbers of one artifact: amax by tensor, and the smallest and largest scale by node."""

    listing: Placement
    amax: dict[str, float]
    scales: dict[str, tuple[float, float]]

    def lines(self) -> list[str]:
        """The listing, with the range before each activation and the scales before each weight."""
        ranges = {tensor: f"  {value:12.6g}" for tensor, value in self.amax.items()}
        scales = {node: f"  {low:10.4g} to {high:10.4g}" for node, (low, high) in self.scales.items()}
        return self.listing.lines(ranges, scales)

    def as_json(self) -> dict[str, object]:
        """The listing's records, each pair with its ``amax`` and each weight with its scales."""
        shown = self.listing
        return {
            "pairs": len(shown.pairs) + len(shown.weights),
            "activations": [{**asdict(pair), "amax": self.amax[pair.tensor]} for pair in shown.pairs],
            "weights": [
                {"node": node, "channels": channels, "scale_min": self.scales[node][0], "scale_max": self.scales[node][1]}
                for node, channels in shown.weights
            ],
            "high_precision": [{"nodes": nodes, "reason": reason} for nodes, reason in shown.high_precision],
            "activations_for_cpu": [{**asdict(pair), "amax": self.amax[pair.tensor]} for pair in shown.for_cpu],
        }


def quantization_of(artifact: Artifact) -> Quantization:
    """The artifact's placement. What is shown of the weights is read from the very graph that TensorRT takes."""
    if artifact.manifest.precision != "int8":
        raise ConfigError(
            f"{artifact.folder} is {artifact.manifest.precision}: nothing in it is quantized", hint="build with --int8"
        )
    from onnx import numpy_helper

    from edge_resnet.compiler.derive import corrected_graph, tensorrt_graph
    from edge_resnet.compiler.graph.placement import placement_of

    table = artifact.calibration()
    shown = placement_of(corrected_graph(artifact), frozenset(table.recipe.keep_high_precision))
    constants = {tensor.name: tensor for tensor in tensorrt_graph(artifact, "weak").graph.initializer}
    scales = {node: numpy_helper.to_array(constants[f"{node}.weight.scale"]) for node, _ in shown.weights}
    return Quantization(
        shown,
        amax={pair.tensor: table.amax[pair.range_of] for pair in (*shown.pairs, *shown.for_cpu)},
        scales={node: (float(value.min()), float(value.max())) for node, value in scales.items()},
    )
