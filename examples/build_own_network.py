"""Any classifier as an artifact: python build_own_network.py NETWORK.onnx IMAGES OUTPUT

NETWORK.onnx: an FP32 classifier of images normalised by ImageNet's mean and std. IMAGES: some of them. OUTPUT: a folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import edge_resnet as er


def main() -> None:
    """Build FP32 from the file, tell what was changed in it, and classify the images."""
    network, images, output = (Path(argument) for argument in sys.argv[1:4])
    artifact = er.build(onnx=network, normalise="imagenet", output=output)
    spec = artifact.manifest.model
    print(f"{spec.name}: {spec.classes} classes, images of {spec.input_size} pixels")
    for change in getattr(spec, "changes", ()):
        print(f"changed: {change}")
    with er.load(artifact) as model:
        for found in model.predict_many(er.open_images(images), top=1):
            print(f"{found.source}: {found.top[0].label}, {100 * found.top[0].probability:.1f} %")


if __name__ == "__main__":
    try:
        main()
    except er.EdgeResnetError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
