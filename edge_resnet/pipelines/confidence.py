"""Temperature and threshold of an existing artifact: found on labelled images, and stored in its manifest. Changes no network."""

from __future__ import annotations

from dataclasses import replace

from edge_resnet.artifact.folder import Artifact, rewrite_manifest
from edge_resnet.artifact.schema import Manifest
from edge_resnet.core.errors import BuildError
from edge_resnet.core.records import Progress
from edge_resnet.images.imageset import ImageSet
from edge_resnet.measurement.accuracy import refuse_random_weights
from edge_resnet.measurement.threshold import find_rule
from edge_resnet.pipelines.engines import prepare_engine

__all__ = ["add_confidence", "remove_confidence"]


def add_confidence(
    artifact: Artifact,
    images: ImageSet,
    max_wrong: float,
    *,
    backend: str = "auto",
    simulate: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Find temperature and threshold on labelled images (``measurement.threshold.find_rule``), and store them in the artifact.

    An earlier threshold is replaced. Raises ConfigError for random weights, what ``find_rule`` raises, and BuildError if the
    artifact cannot be written.
    """
    refuse_random_weights(artifact)
    prepare_engine(artifact, backend, "simulated" if simulate else "native", progress=progress)
    rule = find_rule(artifact, images, max_wrong, backend=backend, simulate=simulate, progress=progress)
    return _written(artifact, replace(artifact.manifest, confidence=rule))


def remove_confidence(artifact: Artifact) -> Artifact:
    """Take temperature and threshold out of the artifact. Raises BuildError if it cannot be written."""
    return _written(artifact, replace(artifact.manifest, confidence=None))


def _written(artifact: Artifact, manifest: Manifest) -> Artifact:
    try:
        return rewrite_manifest(artifact, manifest)
    except BuildError as error:  # its hint is that of a build
        raise error.with_hint("the artifact is unchanged: calibrate --threshold needs a folder that you may write to") from error
