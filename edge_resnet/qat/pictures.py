"""The labelled pictures of a fine-tuning, checked against the classes that the artifact knows. Knows nothing of networks."""

from __future__ import annotations

from pathlib import Path

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import DataError
from edge_resnet.images.datasets import NAMES, open_data, open_pair
from edge_resnet.images.imageset import ImageSet, check_labels, require_labels

__all__ = ["open_pictures"]


def open_pictures(data: str, held_out: str | None, artifact: Artifact) -> tuple[ImageSet, ImageSet | None]:
    """Open what is learned from and, where there is any, what is judged on: ``data`` as ``open_pair`` takes it.

    Class folders are matched with the artifact's labels by name. Raises DataError where labels are missing, belong to another
    network, or are all of one class.
    """
    labels, place = artifact.labels, Path(data)
    if data in NAMES or (place.is_dir() and ((place / "train").is_dir() or any(place.glob("*train.npz")))):
        train, test = open_pair(data)
    else:
        train, test = open_data(data, split="train", label_names=labels), None
    if held_out is not None:
        test = open_data(held_out, split="test", label_names=labels)
    for part in (train, test):
        if part is not None:
            require_labels(part)
            check_labels(part, artifact.manifest.model.classes)
            _check_names(part, labels)
    if len(set(require_labels(train))) < 2:
        raise DataError(f"all {len(train)} pictures of {train.name} are of one class", hint="a network tells two classes apart")
    return train, test


def _check_names(images: ImageSet, labels: tuple[str, ...]) -> None:
    """The set's own class names, where it has any, are the artifact's, in the same order."""
    unnamed = all(label == f"class {index}" for index, label in enumerate(labels))
    if not images.class_names or images.class_names == labels or (unnamed and len(images.class_names) == len(labels)):
        return
    strangers = [name for name in images.class_names if name not in labels]
    lost = [name for name in labels if name not in images.class_names]
    if strangers or lost:
        said = f"{images.name} has {', '.join(strangers[:3]) or 'fewer classes'}, the artifact {', '.join(lost[:3]) or 'fewer'}"
    else:
        said = f"{images.name} numbers them otherwise"
    hint = "give the pictures that the network was trained on; build takes names of its own with --labels"
    raise DataError(f"the classes differ: {said}", hint=hint)
