"""Classify a folder of images, and measure accuracy where they have labels: python evaluate_folder.py ARTIFACT FOLDER

Labels come from class folders (FOLDER/cat/1.jpg), from a CSV with the columns file and class_index, or from an .npz.
"""

from __future__ import annotations

import sys

import edge_resnet as er


def main() -> None:
    """Print a line per image or, where there are labels, the accuracy."""
    artifact, folder = sys.argv[1:]
    with er.load(artifact) as model:
        images = er.open_images(folder, labels=model.labels)
        if images.labels is not None:
            result = er.evaluate(model, images)
            low, high = result.ci95
            print(f"{result.images} images: top-1 {result.top1:.2f} % (95 % interval {low:.2f} to {high:.2f})")
            print(f"the FP32 graph has {result.fp32_top1:.2f} % and gives the same answer on {result.agreement:.2f} %")
            return
        skipped: list[str] = []
        for found in model.predict_many(images, batch=8, top=1, skipped=skipped):
            print(f"{found.source}: {found.top[0].label}")
        if skipped:
            print(f"{len(skipped)} files cannot be read: {', '.join(skipped)}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except er.EdgeResnetError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
