"""INT8 of one's own torch model: python quantize_own_model.py IMAGES OUTPUT [CHECKPOINT]

IMAGES: a few hundred images like those that the network will see, without labels. OUTPUT: a folder for two artifacts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torchvision.models import resnet18

import edge_resnet as er


def main() -> None:
    """Build FP32 from the module, quantize it, and compare the two on the same images."""
    images, output = Path(sys.argv[1]), Path(sys.argv[2])
    torch.manual_seed(0)
    network = resnet18(num_classes=5)
    if len(sys.argv) > 3:
        network.load_state_dict(torch.load(sys.argv[3], map_location="cpu", weights_only=True))

    labels = ["cat", "dog", "bird", "fish", "horse"]
    fp32 = er.build(model=network, labels=labels, input_size=64, output=output / "fp32")
    # Correcting biases takes seconds. Without ``overrides`` roundings are learned too, which takes minutes and is more accurate.
    int8 = er.quantize(fp32, calibration=images, output=output / "int8", overrides=er.RecipeOverrides(correction="bias"))

    sample = er.open_images(images)
    with er.load(fp32) as before, er.load(int8) as after:
        answers = zip(before.predict_many(sample, top=1), after.predict_many(sample, top=1), strict=True)
        same = sum(one.top[0].class_index == other.top[0].class_index for one, other in answers)
    print(f"INT8 gives the same answer as FP32 on {same} of {len(sample)} images")


if __name__ == "__main__":
    try:
        main()
    except er.EdgeResnetError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
