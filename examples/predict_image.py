"""Classify one image: python predict_image.py ARTIFACT IMAGE"""

from __future__ import annotations

import sys

import edge_resnet as er


def main() -> None:
    """Print the five best classes with their probabilities."""
    artifact, image = sys.argv[1:]
    with er.load(artifact) as model:
        # A path, a Pillow image, or an array (H, W, 3) uint8 in RGB; for OpenCV's arrays say color="bgr".
        found = model.predict(image, top=5)
    for score in found.top:
        print(f"{100 * score.probability:5.1f} %  {score.label}")


if __name__ == "__main__":
    try:
        main()
    except er.EdgeResnetError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
