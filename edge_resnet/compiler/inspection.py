"""What is quantized in an INT8 artifact, with ranges and scales, read from the graph that TensorRT takes. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from onnx import numpy_helper

from edge_resnet.artifact.folder import Artifact
from edge_resnet.compiler.derive import corrected_graph, tensorrt_graph
from edge_resnet.compiler.graph.placement import Placement, placement_of
from edge_resnet.core.errors import ConfigError

__all__ = ["Quantization", "quantization_of"]


@dataclass(frozen=True)
class Quantization:
    """An artifact's placement. ``amax``: tensor → its range. ``scales``: node → the smallest and largest scale of its weights."""

    placement: Placement
    amax: dict[str, float]
    scales: dict[str, tuple[float, float]]

    def lines(self) -> list[str]:
        """The listing, with the range in front of each activation and the scales in front of each weight."""
        ranges = {tensor: f"  {value:12.6g}" for tensor, value in self.amax.items()}
        scales = {node: f"  {low:10.4g} to {high:10.4g}" for node, (low, high) in self.scales.items()}
        return self.placement.lines(ranges, scales)

    def as_json(self) -> dict[str, object]:
        """The same as JSON: each pair with its ``amax``, each weight with its scales."""
        shown = self.placement
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
    """The artifact's placement, with the weights' scales from the graph that TensorRT takes.

    Raises ConfigError if the artifact is not INT8.
    """
    if artifact.manifest.precision != "int8":
        raise ConfigError(
            f"{artifact.folder} is {artifact.manifest.precision}: nothing in it is quantized",
            hint="edge-resnet build --int8 makes an artifact that is",
        )
    table = artifact.calibration()
    shown = placement_of(corrected_graph(artifact), frozenset(table.recipe.keep_high_precision))
    constants = {tensor.name: tensor for tensor in tensorrt_graph(artifact, "weak").graph.initializer}
    scales = {node: numpy_helper.to_array(constants[f"{node}.weight.scale"]) for node, _ in shown.weights}
    return Quantization(
        placement=shown,
        amax={pair.tensor: table.amax[pair.range_of] for pair in (*shown.pairs, *shown.for_cpu)},
        scales={node: (float(value.min()), float(value.max())) for node, value in scales.items()},
    )
