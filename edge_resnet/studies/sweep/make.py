"""Artifacts for a sweep: FP32 and FP16 from weights, INT8 from the FP32 graph. Loads torch and onnx when it is called.

Knows nothing of what is measured.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_resnet.artifact.folder import LABELS, MODEL, Artifact, open_artifact, staging
from edge_resnet.core.errors import ArtifactError, CalibrationError, EdgeResnetError, WeightsError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import BatchProfile, Precision, Progress, QuantRecipe
from edge_resnet.images.imageset import ImageSet
from edge_resnet.studies.sweep.cells import Cells
from edge_resnet.studies.sweep.plan import Network, SweepRequest, Target
from edge_resnet.studies.sweep.selection import ImageSplit

__all__ = ["Workshop"]


@dataclass
class Workshop:
    """Makes each artifact once, into ``folder``; one that an earlier run made from the same is taken as it lies there."""

    request: SweepRequest
    folder: Path
    cells: Cells
    images: ImageSplit
    progress: Progress | None
    _made: dict[tuple[str, Precision], Artifact] = field(default_factory=dict)
    _failed: dict[tuple[str, Precision], EdgeResnetError] = field(default_factory=dict)

    @cached_property
    def evaluation_digest(self) -> str:
        """Sha256 over the images that accuracy is measured on; empty where there are none."""
        return "" if self.images.evaluation is None else self.images.evaluation.digest()

    def artifact(self, target: Target) -> tuple[Artifact, bool]:
        """The target's artifact, and whether it was made just now. Raises what making it raised, also the second time."""
        if target.given is not None or target.network is None:
            assert target.given is not None
            return target.given, False
        return self._artifact(target.network, target.precision)

    def _artifact(self, network: Network, precision: Precision) -> tuple[Artifact, bool]:
        which = (network.model.name, precision)
        if which in self._made:
            return self._made[which], False
        if which in self._failed:
            raise self._failed[which]
        try:
            made, fresh = self._kept_or_made(network, precision)
        except EdgeResnetError as error:
            self._failed[which] = error
            raise
        self._made[which] = made
        return made, fresh

    def _kept_or_made(self, network: Network, precision: Precision) -> tuple[Artifact, bool]:
        name = f"{network.model.name}-{precision}"
        output, key = self.folder / name, self._key(network, precision)
        kept = self.cells.get(f"{name}, build", key)
        if kept is not None:
            with suppress(ArtifactError):  # deleted or changed meanwhile: it is made again
                artifact = open_artifact(output)
                if artifact.source_digest() == kept:
                    return artifact, False
        artifact = self._make(network, precision, output)
        self.cells.put(f"{name}, build", key, artifact.source_digest())
        return artifact, True

    def _make(self, network: Network, precision: Precision, output: Path) -> Artifact:
        allow = self.request.allow_random
        if precision == "int8":
            source, _ = self._artifact(network, "fp32")
            sample = self.images.calibration
            return _make_int8(source, sample, self.request.recipe, output, allow_random=allow, progress=self.progress)
        batch = max(self.request.batches)
        return _make_float(network, precision, batch, output, allow_random=allow, progress=self.progress)

    def _key(self, network: Network, precision: Precision) -> dict[str, Any]:
        """What an artifact depends on."""
        weights = network.weights
        if weights not in (None, "default", "random"):
            path = Path(str(weights))
            weights = f"sha256:{sha256_of(path)}" if path.is_file() else weights
        key = {"model": asdict(network.model), "preprocess": asdict(network.preprocess), "weights": weights,
               "batch": max(self.request.batches), "edge-resnet": version("edge-resnet")}  # fmt: skip
        if precision == "int8":
            key |= {"recipe": asdict(self.request.recipe), "calibration": self._calibration_digest}
        return key

    @cached_property
    def _calibration_digest(self) -> str:
        return "" if self.images.calibration is None else self.images.calibration.digest()


def _make_float(
    network: Network,
    precision: Precision,
    batch: int,
    output: Path,
    *,
    allow_random: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Build from weights, over what lies there. ``batch``: the largest that its engines serve. Raises what ``build`` raises."""
    from edge_resnet.pipelines.build import BuildOptions, build

    if network.weights is None:
        raise WeightsError(
            f"there are no weights for {network.model.name}", hint="put a file with its depth in the name beside the others"
        )
    if network.weights == "random" and not allow_random:
        raise WeightsError("random weights are worth no report", hint="--allow-random to try")
    options = BuildOptions(
        model=network.model,
        preprocess=network.preprocess,
        precision=precision,
        weights=network.weights,
        output=output,
        batch=BatchProfile(1, batch, batch),
        backend="onnxruntime",  # no engine is derived for it: those that are measured derive their own
        force=True,
        allow_random=allow_random,
    )
    return build(options, progress=progress)


def _make_int8(
    source: Artifact,
    sample: ImageSet | None,
    recipe: QuantRecipe,
    output: Path,
    *,
    allow_random: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Quantize the FP32 graph of ``source`` with images of ``sample``, over what lies there.

    Raises CalibrationError without images, and what calibration raises.
    """
    from edge_resnet.artifact.folder import write_manifest
    from edge_resnet.images.checks import refuse_noise
    from edge_resnet.quantization.int8 import Int8Options, add_int8, with_int8

    if sample is None:
        raise CalibrationError(
            "INT8 needs images to calibrate on", hint="--calib-data or --data takes a folder, a CSV or an .npz"
        )
    if not allow_random:
        refuse_noise(sample)
    options = Int8Options(sample.name, replace(recipe, images=len(sample)), allow_random=allow_random)
    with staging(output, force=True) as folder:
        for name in (MODEL, LABELS):
            shutil.copyfile(source.folder / name, folder / name)
        made = add_int8(folder, source.manifest.preprocess, options, (sample, None), progress=progress)
        write_manifest(folder, with_int8(source.manifest, made, sample.name))
    return open_artifact(output)
